"""What a run is told: one frozen model per stage, from TOML files and --set key=value."""

from realm.config.base import Config, check
from realm.config.data import MaskConfig, SplitConfig
from realm.config.files import SECTIONS, load_config, parse_override, read_toml
from realm.config.index import ApproximateConfig, IndexConfig, RefreshConfig
from realm.config.joint import PretrainConfig
from realm.config.questions import CalibrateConfig, ClassifyConfig, EvaluateConfig, FinetuneConfig
from realm.config.training import EncoderConfig, IctConfig, MlmConfig, OptimizerConfig, TrainConfig

__all__ = [
    "SECTIONS",
    "ApproximateConfig",
    "CalibrateConfig",
    "ClassifyConfig",
    "Config",
    "EncoderConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "IctConfig",
    "IndexConfig",
    "MaskConfig",
    "MlmConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "RefreshConfig",
    "SplitConfig",
    "TrainConfig",
    "check",
    "load_config",
    "parse_override",
    "read_toml",
]
