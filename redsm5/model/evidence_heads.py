"""Evidence heads that score spans: from the encoder's states to the token spans that are evidence for an output.

Token 0 is [CLS] and means "no evidence" (Devlin et al. 2019, section 4.3, for SQuAD 2.0). Heads compute in float32.
Shapes: S sequences, T tokens, H hidden, C outputs, L maximum length of a span, G gold spans, J sentences per sequence,
D size of the biaffine head's vectors (plus one for the constant 1).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redsm5.model.activation import build_activation
from redsm5.model.crf import BioCrfHead
from redsm5.model.sentences import SentenceReranker
from redsm5.model.spans import MASKED, Candidates, allowed_spans, band, best_spans, best_within, choice_loss
from redsm5.sections import ModelConfig

BIAFFINE_SIZE = 128  # Yu et al. use 150; tensor cores are fastest on multiples of 8


class StartEndHead(nn.Module):
    """A start and an end logit for each token and output (Devlin et al. 2019, section 4.2), from one linear layer; with
    `hidden`, after a hidden layer.

    The last layer has no bias: it would shift all tokens' logits alike, which the softmax cancels.
    """

    def __init__(self, config: ModelConfig, hidden_size: int, outputs: int, *, hidden: bool) -> None:
        super().__init__()
        self.max_span_tokens = config.max_span_tokens
        self.dropout = nn.Dropout(config.evidence_dropout)
        self.hidden = nn.Sequential()
        if hidden:
            layer = nn.Linear(hidden_size, hidden_size)
            self.hidden = nn.Sequential(layer, build_activation(config.activation), nn.Dropout(config.evidence_dropout))
        self.linear = nn.Linear(hidden_size, outputs * 2, bias=False)

    def forward(self, states_STH: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """evidence_logits_SCT2, (start, end); MASKED for tokens that are neither the post's text nor [CLS]."""
        S, T, _ = states_STH.shape
        logits_SCT2 = self.linear(self.hidden(self.dropout(states_STH))).view(S, T, -1, 2).transpose(1, 2).float()
        eligible_ST = batch["text_mask_ST"].bool()
        eligible_ST = torch.cat([torch.ones_like(eligible_ST[:, :1]), eligible_ST[:, 1:]], dim=1)
        return {"evidence_logits_SCT2": logits_SCT2.masked_fill(~eligible_ST[:, None, :, None], MASKED)}

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """The mean of the cross-entropies of start and end, over the outputs whose evidence is known.

        With several gold spans, the target is uniform over their distinct starts (ends).
        """
        start_SCT, end_SCT = outputs["evidence_logits_SCT2"].unbind(dim=-1)
        spans_G4 = batch["spans_G4"]
        known_SC, count = batch["known_SC"], batch.get("known_count")
        start = choice_loss(start_SCT, spans_G4[:, [0, 1, 2]], known_SC, count)
        end = choice_loss(end_SCT, spans_G4[:, [0, 1, 3]], known_SC, count)
        return (start + end) / 2

    def decode(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], count: int) -> Candidates:
        """The best spans by the sum of their start and end logits. The margin compares that sum with token 0's.

        A span's score is sqrt(p(start) p(end)); both probabilities are softmaxes over the tokens.
        """
        start_SCT, end_SCT = outputs["evidence_logits_SCT2"].float().unbind(dim=-1)
        length = min(self.max_span_tokens, start_SCT.shape[-1])
        allowed_STL = allowed_spans(batch["text_mask_ST"], length)
        scores_SCTL = start_SCT.unsqueeze(-1) + band(end_SCT, length)
        spans_SCK2, logits_SCK = best_spans(scores_SCTL.masked_fill(~allowed_STL.unsqueeze(1), MASKED), count)
        all_SC1 = (start_SCT.logsumexp(dim=-1) + end_SCT.logsumexp(dim=-1)).unsqueeze(-1)
        null_SC = start_SCT[..., 0] + end_SCT[..., 0]
        return Candidates(spans_SCK2, ((logits_SCK - all_SC1) / 2).exp(), logits_SCK[..., 0] - null_SC)

    def score_sentences(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], ranges_SJ2: Tensor) -> Tensor:
        """scores_SCJ: of the best span within each sentence, its start and end logits against token 0's."""
        start_SCT, end_SCT = outputs["evidence_logits_SCT2"].float().unbind(dim=-1)
        length = min(self.max_span_tokens, start_SCT.shape[-1])
        allowed_STL = allowed_spans(batch["text_mask_ST"], length)
        scores_SCTL = (start_SCT.unsqueeze(-1) + band(end_SCT, length)).masked_fill(~allowed_STL.unsqueeze(1), MASKED)
        return best_within(scores_SCTL, ranges_SJ2) - (start_SCT[..., 0] + end_SCT[..., 0]).unsqueeze(-1)


class BiaffineHead(nn.Module):
    """A score for each span of at most `max_span_tokens`: [f(i); 1] U [g(j); 1] of its first token i and its last token
    j (Dozat and Manning 2017; Yu et al. 2020, section 3), and one for "no evidence" from [CLS].
    """

    def __init__(self, config: ModelConfig, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.max_span_tokens = config.max_span_tokens
        self.dropout = nn.Dropout(config.evidence_dropout)
        self.first = nn.Linear(hidden_size, BIAFFINE_SIZE)
        self.last = nn.Linear(hidden_size, BIAFFINE_SIZE)
        self.activation = build_activation(config.activation)
        self.weight_CDD = nn.Parameter(torch.empty(outputs, BIAFFINE_SIZE + 1, BIAFFINE_SIZE + 1))
        nn.init.uniform_(self.weight_CDD, -(BIAFFINE_SIZE**-0.5), BIAFFINE_SIZE**-0.5)  # as nn.Bilinear is initialized
        self.null = nn.Linear(hidden_size, outputs)

    def forward(self, states_STH: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """evidence_scores_SCTL, MASKED for spans that reach beyond the post's text, and evidence_null_SC."""
        states_STH = self.dropout(states_STH)
        first_STD = F.pad(self.dropout(self.activation(self.first(states_STH))), (0, 1), value=1.0)
        last_STD = F.pad(self.dropout(self.activation(self.last(states_STH))), (0, 1), value=1.0)
        first_STCD = torch.einsum("std,cde->stce", first_STD, self.weight_CDD)
        length = min(self.max_span_tokens, states_STH.shape[1])
        scores_SCTL = banded_products(first_STCD, last_STD, length).float()
        allowed_STL = allowed_spans(batch["text_mask_ST"], length)
        return {
            "evidence_scores_SCTL": scores_SCTL.masked_fill(~allowed_STL.unsqueeze(1), MASKED),
            "evidence_null_SC": self.null(states_STH[:, 0]).float(),
        }

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy over all spans and "no evidence", averaged over the outputs whose evidence is known.

        The target is uniform over several gold spans; a gold span longer than `max_span_tokens` is cut to its first
        tokens.
        """
        scores_SCTL = outputs["evidence_scores_SCTL"]
        L = scores_SCTL.shape[-1]
        logits_SCX = torch.cat([outputs["evidence_null_SC"].unsqueeze(-1), scores_SCTL.flatten(2)], dim=-1)
        sequence_G, output_G, first_G, last_G = batch["spans_G4"].unbind(dim=-1)
        choice_G = 1 + first_G * L + (last_G - first_G).clamp(max=L - 1)
        gold_G3 = torch.stack([sequence_G, output_G, choice_G], dim=-1)
        return choice_loss(logits_SCX, gold_G3, batch["known_SC"], batch.get("known_count"))

    def decode(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], count: int) -> Candidates:
        """The best spans by their scores. A span's score is its probability in the softmax over all spans and "no
        evidence"; the margin compares the best span with "no evidence".
        """
        scores_SCTL, null_SC = outputs["evidence_scores_SCTL"].float(), outputs["evidence_null_SC"].float()
        spans_SCK2, logits_SCK = best_spans(scores_SCTL, count)
        all_SC1 = torch.logaddexp(scores_SCTL.flatten(2).logsumexp(dim=-1), null_SC).unsqueeze(-1)
        return Candidates(spans_SCK2, (logits_SCK - all_SC1).exp(), logits_SCK[..., 0] - null_SC)

    def score_sentences(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], ranges_SJ2: Tensor) -> Tensor:
        """scores_SCJ: the score of the best span within each sentence against that of "no evidence"."""
        best_SCJ = best_within(outputs["evidence_scores_SCTL"].float(), ranges_SJ2)
        return best_SCJ - outputs["evidence_null_SC"].float().unsqueeze(-1)


def banded_products(first_STCD: Tensor, last_STD: Tensor, length: int) -> Tensor:
    """scores_SCTL: at [t, l] the inner product of first_STCD at t and last_STD at t + l; 0 beyond the last token.

    Computed in blocks of L tokens, each times the 2 L tokens at which its spans can end: S * C * T * 2 L numbers
    instead of S * C * T * T for all pairs of tokens.
    """
    S, T, C, D = first_STCD.shape
    L, blocks = length, -(-T // length)
    rest = blocks * L - T
    first = F.pad(first_STCD, (0, 0, 0, 0, 0, rest)).view(S, blocks, L * C, D)
    last = F.pad(last_STD, (0, 0, 0, rest + L)).view(S, blocks + 1, L, D)
    last = torch.cat([last[:, :-1], last[:, 1:]], dim=2)
    products = (first @ last.transpose(-1, -2)).view(S, blocks, L, C, 2 * L).permute(0, 3, 1, 2, 4)
    # The band of row i begins at column i. Viewed with rows one element longer, all bands begin at column 0.
    skewed = F.pad(products.flatten(3), (0, L)).view(S, C, blocks, L, 2 * L + 1)
    return skewed[..., :L].reshape(S, C, blocks * L, L)[:, :, :T]


EvidenceHead = StartEndHead | BiaffineHead | BioCrfHead | SentenceReranker


def build_evidence_head(config: ModelConfig, *, hidden_size: int, outputs: int) -> EvidenceHead:
    """The head that `evidence_head_type` names.

    Each head has forward(states_STH, batch), which returns a dict of tensors whose names begin with evidence_;
    loss(outputs, batch), a scalar; decode(outputs, batch, count), its Candidates; and score_sentences(outputs, batch,
    ranges_SJ2), scores_SCJ for the sentences with these first and last tokens, padded with -1: the higher, the more
    likely is the sentence evidence; finite, and about MASKED where the window shows too little of it.
    """
    if config.evidence_head_type == "biaffine":
        return BiaffineHead(config, hidden_size, outputs)
    if config.evidence_head_type == "bio_crf":
        return BioCrfHead(config, hidden_size, outputs)
    if config.evidence_head_type == "sentence_reranker":
        return SentenceReranker(config, hidden_size, outputs)
    return StartEndHead(config, hidden_size, outputs, hidden=config.evidence_head_type == "start_end_mlp")
