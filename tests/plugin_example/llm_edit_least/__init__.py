"""least-change, an editing method for llm-edit. Imports no torch: `llm-edit methods` reads this."""

from engine.methods import DECODERS, MethodInfo

INFO = MethodInfo(
    name="least-change",
    target="llm_edit_least.method:least_change",
    params="llm_edit_least.method:LeastParams",
    summary="the smallest update of one MLP that says the new facts; needs no text statistics",
    paper="the identity in place of C in Meng et al. 2022, arXiv:2202.05262, eq. 2",
    batch=True,
    families=DECODERS,
)
