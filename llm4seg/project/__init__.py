"""A user's own project, which runs the stages of the installed package: `llm4seg init`."""
