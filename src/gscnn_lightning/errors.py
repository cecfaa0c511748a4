"""The exceptions a user may want to catch. Each message says what was wrong, the value seen, and what to do."""


class GSCNNError(Exception):
    """Base of all errors that a user's input can cause; the command line prints them without a traceback."""


class SettingError(GSCNNError, ValueError):
    """A setting is out of range, or does not go with another."""


class DataError(GSCNNError):
    """A data set cannot be used as it is: something missing, unreadable, unpaired or out of range."""


class BackboneError(GSCNNError):
    """A timm model cannot serve as the regular stream."""


class WeightsError(GSCNNError):
    """A weight file or checkpoint cannot be read or does not fit."""


class TrainingError(GSCNNError):
    """A training has gone astray, such as by a learning rate that is too high."""


class ExportError(GSCNNError):
    """A network cannot be exported, or an exported one cannot be used here."""
