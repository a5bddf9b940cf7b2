"""Stage `search`: find better parameters with Ray Tune; with `search.trials: 0`, override none."""

from llm4seg.config import Config
from llm4seg.files import replacing, write_json
from pipelines.stage import run_stage


def search(config: Config) -> None:
    """Leave overrides.json, which `train` applies, and a table of the trials."""
    with replacing(config.paths.search) as folder:
        folder.mkdir()
        if config.search.trials == 0:
            print("search: off (search.trials is 0); no parameter is overridden")
            write_json(folder / "overrides.json", {})
            return
        from llm4seg.cluster.search import run_search
        from llm4seg.cluster.session import ray_session

        with ray_session(config.cluster):
            findings = run_search(config)
        findings.trials.to_csv(folder / "trials.csv", index=False)
        write_json(folder / "overrides.json", findings.best)
        print(f"search: best of {len(findings.trials)} trials: {findings.best}")


if __name__ == "__main__":
    run_stage("search", "Find better parameters with Ray Tune; with search.trials: 0, override none.", search)
