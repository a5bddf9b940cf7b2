"""One file a command of `python -m infra`: its docstring is its help; EXAMPLE, add_arguments(parser), run(options)."""
