"""Metrics, sinks, transcripts and reports of a run."""
