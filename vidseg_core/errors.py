"""Errors that a user can cause. The command line prints their message on one line and exits with status 2."""


class VidsegError(ValueError):
    """Base class: what was given to vidseg is not what it must be. The message names it, the expected and the found."""


class ConfigError(VidsegError):
    """A configuration value is out of range, unknown, or contradicts another one."""


class ClassTableError(VidsegError):
    """A class table is malformed, or two class tables that must agree do not."""


class CheckpointError(VidsegError):
    """A weight file is missing, truncated, of another network, or holds values that cannot be used."""


class SourceError(VidsegError):
    """A source of frames cannot be opened, or a frame of it cannot be read."""


class DatasetError(VidsegError):
    """A data set is incomplete, or an image and its labels do not fit together."""
