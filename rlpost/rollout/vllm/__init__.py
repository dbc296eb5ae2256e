"""vLLM, and only vLLM: the engine, its weights, and what differs between its versions."""
