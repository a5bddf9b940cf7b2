from llm4seg.predict.model import Segmentation as Segmentation
from llm4seg.predict.model import SegmentationModel as SegmentationModel
from llm4seg.predict.model import load as load
from llm4seg.utils.errors import InputError as InputError

__all__ = ["InputError", "Segmentation", "SegmentationModel", "load"]
