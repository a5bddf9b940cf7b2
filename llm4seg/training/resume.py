"""The checkpoint that a training goes on from."""

from llm4seg.runtime.collectives import all_reduce_max
from llm4seg.training.checkpoint import Checkpoint, DamagedCheckpoint
from llm4seg.training.run import Run
from llm4seg.utils.logs import Warned


def newest(run: Run) -> Checkpoint | None:
    """The newest checkpoint that every worker can read; logs the damaged ones."""
    for opened in run.checkpoints():
        damage, checkpoint = "", None
        with opened as folder:
            try:
                checkpoint = Checkpoint.read(folder)
            except DamagedCheckpoint as error:
                damage = str(error)
        if not all_reduce_max(bool(damage), run.device):
            return checkpoint
        run.log(Warned(f"{damage or 'another worker found a damaged checkpoint'}; trying the one before"))
    return None
