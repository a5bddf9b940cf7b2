"""One DVC stage a file: load the config, call llm4seg, write the stage's outputs."""
