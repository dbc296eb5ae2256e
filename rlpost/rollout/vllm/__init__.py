"""Everything specific to vLLM: the engine, its weights, and what differs between its versions."""
