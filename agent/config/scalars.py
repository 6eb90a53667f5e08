"""What one value of the policy may be: the kinds of scalars, and the names that schema.py's keys have for them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from agent.config.selector import Selector


class Kind(Enum):
    """What a scalar means beyond its type; config/scalar_types.py has how each is read, spelled and described."""

    FLAG = "true or false"
    TEXT = "text"
    WORDS = "text that is not empty"
    DURATION = "a duration such as 90s, 10m, 1h30m"
    SIZE = "a size such as 512B, 4KiB, 1MiB"
    REGEXP = "a regular expression (Python's)"
    SELECTOR = "a label selector such as app=web,tier!=cache"
    PATH = "an absolute path"
    PATH_OR_NONE = "an absolute path, or empty"
    PATH_OR_AUTO = "auto, or an absolute path"
    MODULE = "a kernel module's name"
    NAME = "a file's name without folder and ending"
    OBJECT_OR_NONE = "namespace/name, or empty"
    ADDRESS = "host:port, or empty"
    URL = "an http or https URL, or empty"
    TIME = "a time of day, HH:MM"
    DATE_OR_NONE = "a date such as 2026-12-24, or 12-24 for every year, or empty"
    TIMEZONE = "an IANA time zone such as Europe/Berlin"
    LABEL = "a label's key"
    LABEL_OR_NONE = "a label's key, or empty"
    LABEL_VALUE = "a label's value"
    COUNT = "a whole number of one or more"
    NATURAL = "a whole number of zero or more"
    COUNT_OR_PERCENT = "a whole number of one or more, or a percentage such as 10%"
    EXIT_CODE = "an exit code from 0 to 255, but not 126 and 127"
    TEMPLATE = "text with {node}, {event}, {message}, {cluster}, {severity}"
    ARGUMENT = "a word of a command"
    ARGV = "a command as a list, its program with an absolute path"


Words = Annotated[str, Kind.WORDS]
Seconds = Annotated[float, Kind.DURATION]  # written with a unit, held as seconds
Bytes = Annotated[int, Kind.SIZE]
Regexp = Annotated[str, Kind.REGEXP]
Path = Annotated[str, Kind.PATH]
PathOrNone = Annotated[str, Kind.PATH_OR_NONE]
PathOrAuto = Annotated[str, Kind.PATH_OR_AUTO]
Module = Annotated[str, Kind.MODULE]
Name = Annotated[str, Kind.NAME]
ObjectNameOrNone = Annotated[str, Kind.OBJECT_OR_NONE]
Address = Annotated[str, Kind.ADDRESS]  # agent.config.scalar_types.split_address parts it
Url = Annotated[str, Kind.URL]
TimeOfDay = Annotated[str, Kind.TIME]
DateOrNone = Annotated[str, Kind.DATE_OR_NONE]
Timezone = Annotated[str, Kind.TIMEZONE]  # UTC is accepted where the machine has no time zone data, others are not
LabelKey = Annotated[str, Kind.LABEL]
LabelKeyOrNone = Annotated[str, Kind.LABEL_OR_NONE]
LabelValue = Annotated[str, Kind.LABEL_VALUE]
Count = Annotated[int, Kind.COUNT]
Natural = Annotated[int, Kind.NATURAL]
CountOrPercent = Annotated[str, Kind.COUNT_OR_PERCENT]
ExitCode = Annotated[int, Kind.EXIT_CODE]
Template = Annotated[str, Kind.TEMPLATE]
LabelSelector = Annotated[Selector, Kind.SELECTOR]
Command = Annotated[tuple[str, ...], Kind.ARGV]
