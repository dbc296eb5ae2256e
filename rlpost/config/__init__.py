"""The typed configuration: schema, loading, rules across sections."""
