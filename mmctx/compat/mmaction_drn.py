"""Stand-in for `mmaction.models.localizers.drn.drn`, which is missing from mmaction2's wheel."""

from mmaction.registry import MODELS

from mmctx.errors import Unavailable


@MODELS.register_module()
class DRN:
    """Placeholder that lets `mmaction.models` be imported.

    Raises:
        Unavailable: Whenever a DRN is built.
    """

    def __init__(self, *args, **kwargs):
        raise Unavailable(
            "DRN is missing from mmaction2's wheel; install mmaction2 from its source to use it"
        )
