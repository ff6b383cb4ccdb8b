"""The rows: what is trained from scratch, and what further from a vanilla network's weights."""

from typing import Any, NamedTuple

RESNET, CONVNEXT = 'ResNet50', 'ConvNeXt'


class Row(NamedTuple):
    """A network and how it is trained.

    Attributes:
        key (str): Short name; that of the paper's Table 4 where there is one.
        model (str): What it is.
        backbone (dict, optional): Arguments of the contextual backbone; None for the vanilla one.
        rates (dict): Factors of `ContextualOptimWrapperConstructor`, over `RATES`. Defaults to {}.
        control (str): `other`, priors of another image, or ''. Defaults to ''.
        waiting (float): Share of the training in which only classifying parameters learn. Defaults
            to 0.
        from_classifier (bool): Whether class embeddings start as the vanilla classifier's weights.
            Defaults to False.
        fewer (int): By how much the numbers of kept classes are divided. Defaults to 1.
        against (str): Key of the row that it is compared with. Defaults to `a5`.
        family (str): `RESNET` or `CONVNEXT`. Defaults to `RESNET`.
        from_scratch (bool): Whether it is trained like the vanilla networks where all others start,
            in which case `rates` and `waiting` are not used. Defaults to False.
        loss (dict): Arguments of `StagewiseCrossEntropy`, over its own defaults. Defaults to {}.
    """

    key: str
    model: str
    backbone: dict[str, Any] | None
    rates: dict[str, float] = {}
    control: str = ''
    waiting: float = 0.0
    from_classifier: bool = False
    fewer: int = 1
    against: str = 'a5'
    family: str = RESNET
    from_scratch: bool = False
    loss: dict[str, Any] = {}

    @property
    def classifies_by_embeddings(self) -> bool:
        """Whether class embeddings take the place of the linear classifier."""
        return self.backbone is not None and self.backbone.get('prior') != 'none'

    @property
    def vanilla(self) -> str:
        """Key of the vanilla row of the same family."""
        return VANILLA[self.family]


VANILLA = {RESNET: 'a1', CONVNEXT: 'convnext'}
# Where the rows of a family start.
BASES = {
    RESNET: Row('base', 'ResNet50 from scratch, where others start', None,
                against='a1', from_scratch=True),
    CONVNEXT: Row('convnext-base', 'ConvNeXt from scratch, where others start', None,
                  against='convnext', family=CONVNEXT, from_scratch=True),
}  # fmt: skip
# Factors on the learning rate. At a tenth, which deformable networks take, predictors hardly leave
# zero within some thousand steps.
RATES = dict(vanilla_lr_mult=0.3, classifying_lr_mult=1.0, predictor_lr_mult=0.3)
SLOW, FAST = dict(predictor_lr_mult=0.1), dict(predictor_lr_mult=1.0)
RERANK = dict(selection='rerank')
NORMALIZED = dict(RERANK, merging=dict(normalize=True))
SCORES = dict(RERANK, merging=dict(temperature=1.0, normalize=True))
LIGHT = dict(stage_weights=(0.015, 0.015, 0.015, 1.0))
RELEASED = dict(vanilla_lr_mult=0.1, predictor_lr_mult=1.0, context_decay_mult=10.0)

# In the order of what they tell, as a call may be out of time before the last.
MAIN = (
    Row('a1', 'ResNet50, trained further', None, against='a1'),
    Row('a5', '+Ctx +CtxConv, `rerank`, the mean as published', RERANK, against='a2'),
    Row('a3', '+CtxConv, no prior', dict(prior='none'), against='a1'),
    Row('a2', '+Ctx, the prior as an input, `rerank`', dict(RERANK, prior='input'), against='a1'),
    Row('reduce', 'a5, `reduce`', dict(selection='reduce')),
    Row('scores', 'a5, normalized embeddings weighted by their scores', SCORES),
    Row('other', 'scores, priors of another image', SCORES, control='other', against='scores'),
    Row('true-kept', 'normalized, the true class always kept',
        dict(NORMALIZED, type='mmctx.TrueClassKeptResNet'), against='normalized'),
    Row('normalized', 'a5, normalized embeddings', NORMALIZED),
    Row('a3-stages', 'a3, all blocks of all stages',
        dict(prior='none', every=1, contextual_stages=(1, 2, 3, 4)), against='a3'),
    Row('a5-scratch', 'a5 from scratch', RERANK, against='base', from_scratch=True),
)  # fmt: skip
# Trained where they are named.
MORE = (
    Row('a3-all', 'a3, all blocks of stages 2 to 4', dict(prior='none', every=1), against='a3'),
    Row('a3-fast', 'a3, predictors at the full rate', dict(prior='none'), FAST, against='a3'),
    Row('a5-all', 'a5, all blocks of stages 2 to 4', dict(RERANK, every=1)),
    Row('a5-light', 'a5-all, losses of stages 1 to 3 at a tenth', dict(RERANK, every=1),
        against='a5-all', loss=LIGHT),
    Row('a5-start', 'a5-light, embeddings from the classifier, classifying layers learn first',
        dict(RERANK, every=1), waiting=0.15, from_classifier=True, against='a5-light',
        loss=LIGHT),
    Row('a2-light', 'a2, losses of stages 1 to 3 at a tenth', dict(RERANK, prior='input'),
        against='a2', loss=LIGHT),
    Row('true-alone', 'a5, the prior of the true class alone',
        dict(RERANK, type='mmctx.TrueClassAloneResNet')),
    Row('convnext', 'ConvNeXt, trained further', None, against='convnext', family=CONVNEXT),
    Row('ctx-convnext', '+Ctx +CtxConv, `rerank`', RERANK, against='convnext', family=CONVNEXT),
    Row('convnext-no-prior', '+CtxConv, no prior', dict(prior='none'), against='convnext',
        family=CONVNEXT),
    Row(
        'classifier', 'scores, embeddings from the classifier, classifying layers learn first',
        SCORES, waiting=0.15, from_classifier=True, against='scores',
    ),
    Row('few', 'normalized, a third of the classes kept', NORMALIZED, fewer=3,
        against='normalized'),
    Row('fast', 'a5, predictors at the full rate', RERANK, FAST),
    Row('slow', 'a5, predictors at a tenth of the rate', RERANK, SLOW),
    Row('released', "a5, the release's rates and decay", RERANK, RELEASED),
    Row('a1-quick', 'a1 at the full rate', None, dict(vanilla_lr_mult=1.0), against='a1'),
    Row('quick', 'scores, all at the full rate', SCORES, dict(vanilla_lr_mult=1.0),
        against='a1-quick'),
    Row('a4', '+Deform, offsets and masks, predictors four times as wide as those of a3',
        dict(prior='none', preset='released', offsets=('sampling',), reduction=1), against='a1'),
)  # fmt: skip
ROWS = (*MAIN, *MORE)
