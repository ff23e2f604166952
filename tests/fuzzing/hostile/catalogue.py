"""All targets by name."""

from collections.abc import Mapping

from hostile.folders import FOLDER_TARGETS
from hostile.target import Target
from hostile.texts import TEXT_TARGETS
from hostile.web import WEB_TARGETS

TARGETS: Mapping[str, Target] = {
    target.name: target for target in (*TEXT_TARGETS, *FOLDER_TARGETS, *WEB_TARGETS)
}
