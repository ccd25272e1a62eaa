from vidseg_core.classes import ClassTable as ClassTable
from vidseg_core.classes import load_classes as load_classes
from vidseg_core.data.open import open_source as open_source
from vidseg_core.engine.build import build_engine as build_engine
from vidseg_core.engine.config import EngineConfig as EngineConfig
from vidseg_core.engine.engine import Engine as Engine
from vidseg_core.engine.function import network_segmenter as network_segmenter
from vidseg_core.engine.stream import Stream as Stream
from vidseg_core.frame import Frame as Frame
from vidseg_core.frame import Segmentation as Segmentation
from vidseg_core.models.card import InputCard as InputCard
from vidseg_core.models.card import OutputCard as OutputCard

__version__: str
__all__ = [
    "ClassTable",
    "Engine",
    "EngineConfig",
    "Frame",
    "InputCard",
    "OutputCard",
    "Segmentation",
    "Stream",
    "__version__",
    "build_engine",
    "load_classes",
    "network_segmenter",
    "open_source",
]
