"""The rows: what is trained further from the vanilla network's weights."""

from typing import Any, NamedTuple

VANILLA = 'a1'


class Row(NamedTuple):
    """A network and how it is trained.

    Attributes:
        key (str): Short name; that of the paper's Table 4 where there is one.
        model (str): What it is.
        backbone (dict, optional): Arguments of the contextual backbone; None for the vanilla one.
        rates (dict): Factors of `ContextualOptimWrapperConstructor`, over `RATES`.
        control (str): `other`, priors of another image, or ''. Defaults to ''.
        waiting (float): Share of the training for which vanilla parameters wait. Defaults to 0.
        from_classifier (bool): Whether class embeddings start as the vanilla classifier's weights.
            Defaults to False.
        against (str): Key of the row that it is a variant of. Defaults to `a5`.
    """

    key: str
    model: str
    backbone: dict[str, Any] | None
    rates: dict[str, float] = {}
    control: str = ''
    waiting: float = 0.0
    from_classifier: bool = False
    against: str = 'a5'

    @property
    def classifies_by_embeddings(self) -> bool:
        """Whether class embeddings take the place of the linear classifier."""
        return self.backbone is not None and self.backbone.get('prior') != 'none'


# Factors on the learning rate. A tenth is what deformable convolutions have always had.
RATES = dict(vanilla_lr_mult=0.3, classifying_lr_mult=1.0, predictor_lr_mult=0.1)
RERANK = dict(selection='rerank')
SCORES = dict(RERANK, merging=dict(temperature=1.0, normalize=True))
RELEASED = dict(vanilla_lr_mult=0.1, predictor_lr_mult=1.0, context_decay_mult=10.0)

# In the order of what they tell, as a call may be out of time before the last.
MAIN = (
    Row(VANILLA, 'ResNet50, no longer from scratch', None, against=VANILLA),
    Row('a5', '+Ctx +CtxConv, `rerank`, the mean as published', RERANK, against=VANILLA),
    Row('scores', 'a5, normalized embeddings weighted by their scores', SCORES),
    Row('a3', '+CtxConv, no prior', dict(prior='none'), against=VANILLA),
    Row(
        'classifier', 'scores, embeddings from the classifier, vanilla parameters wait at first',
        SCORES, waiting=0.15, from_classifier=True, against='scores',
    ),
    Row('other', 'scores, priors of another image', SCORES, control='other', against='scores'),
    Row('a2', '+Ctx, the prior as an input, `rerank`', dict(RERANK, prior='input'),
        against=VANILLA),
    Row('true-kept', 'a5, the true class always kept',
        dict(RERANK, type='mmctx.TrueClassKeptResNet')),
    Row('reduce', 'a5, `reduce`', dict(selection='reduce')),
    Row('few', 'scores, a third of the classes kept', dict(SCORES, considered=1 / 3),
        against='scores'),
    Row('released', "a5, the release's rates and decay", RERANK, RELEASED),
)  # fmt: skip
# Trained where they are named.
MORE = (
    Row('a1-quick', 'a1 at the full rate', None, dict(vanilla_lr_mult=1.0), against=VANILLA),
    Row('quick', 'scores, all at the full rate but the predictors', SCORES,
        dict(vanilla_lr_mult=1.0), against='a1-quick'),
    Row('normalized', 'a5, normalized embeddings merged at width 256',
        dict(RERANK, merging=dict(normalize=True, hidden=256))),
    Row('a4', '+Deform, offsets and masks, predictors four times as wide as those of a3',
        dict(prior='none', preset='released', offsets=('sampling',), reduction=1), against=VANILLA),
    Row('predictors', 'a5, predictors at the full rate', RERANK, dict(predictor_lr_mult=1.0)),
    Row('true-alone', 'a5, the prior of the true class alone',
        dict(RERANK, type='mmctx.TrueClassAloneResNet')),
)  # fmt: skip
ROWS = (*MAIN, *MORE)
