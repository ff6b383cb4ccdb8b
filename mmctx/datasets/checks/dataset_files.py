"""Files of a data set as its config states them, for the quick check."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class DatasetFiles(NamedTuple):
    """Files of a data set, which exist, and what they have to contain.

    Attributes:
        config (Mapping): Config of the data set.
        cls (type | None): Class of the data set; None if it is not registered.
        root (str): Folder of the data.
        ann_file (str): Annotation file; '' if there is none on this machine.
        folders (Mapping[str, str]): Folders of the data, by the keys of `data_prefix`.
        hint (str): Advice on how to name another folder of the data.
        annotations_needed (bool): Whether the annotation file has to contain annotations; a set
            that is only predicted has none.
        loader (str): Name of the data loader, for messages.
    """

    config: Mapping
    cls: type | None
    root: str
    ann_file: str
    folders: Mapping[str, str]
    hint: str
    annotations_needed: bool = True
    loader: str = 'the data set'

    @property
    def classes(self) -> Sequence[str] | str | None:
        """Names of the classes, as the config states them; None if it does not."""
        own = getattr(self.cls, 'METAINFO', {}).get('classes')
        return (self.config.get('metainfo') or {}).get('classes', own)
