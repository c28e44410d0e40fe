"""The evidence head that ranks the post's own sentences.

Shapes: S sequences, T tokens, H hidden, C outputs, M sentences of the batch, J sentences per sequence (the maximum over
the batch, at least one), X the same of those that the head read, G gold spans.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from redsm5.model.activation import build_activation
from redsm5.model.spans import MASKED, Candidates, best_places, mean_over_known, tokens_in
from redsm5.sections import ModelConfig

PRIOR = 0.01  # the initial probability that a sentence is evidence (Lin et al. 2017, section 4.1)


class SentenceReranker(nn.Module):
    """One logit per sentence and output, from the mean of the sentence's states concatenated with the state of [CLS].

    Nogueira and Cho (2019) score each passage in its own pass, together with the query; here all sentences of a post
    share one pass, so that each is read in its context (Liu and Lapata 2019, section 3.1).
    """

    def __init__(self, config: ModelConfig, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.evidence_dropout)
        self.hidden = nn.Linear(2 * hidden_size, hidden_size)
        self.activation = build_activation(config.activation)
        self.linear = nn.Linear(hidden_size, outputs)
        # Nearly all sentences are not evidence: with even initial odds, their loss would at first dominate all others.
        nn.init.constant_(self.linear.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, states_STH: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """evidence_logits_SCJ, MASKED if a sequence has fewer sentences than J."""
        ranges_SJ2 = arrange(batch["sentences_M3"], states_STH.shape[0])
        inside_SJT = tokens_in(ranges_SJ2, states_STH.shape[1])
        length_SJ1 = inside_SJT.sum(dim=-1, keepdim=True).clamp(min=1)
        sentence_SJH = inside_SJT.to(states_STH.dtype) @ states_STH / length_SJ1
        cls_SJH = states_STH[:, :1].expand_as(sentence_SJH)
        hidden_SJH = self.activation(self.hidden(self.dropout(torch.cat([sentence_SJH, cls_SJH], dim=-1))))
        logits_SJC = self.linear(self.dropout(hidden_SJH)).float().masked_fill(ranges_SJ2[..., :1] < 0, MASKED)
        return {"evidence_logits_SCJ": logits_SJC.transpose(1, 2)}

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Binary cross-entropy, summed over a sequence's sentences and averaged over the outputs whose evidence is
        known: like the other heads' losses, the negative log-likelihood of an output's evidence, in nats.
        """
        logits_SCJ = outputs["evidence_logits_SCJ"]
        ranges_SJ2 = arrange(batch["sentences_M3"], logits_SCJ.shape[0])
        gold_SCJ = gold_sentences(ranges_SJ2, batch["spans_G4"], logits_SCJ.shape[1])
        loss_SCJ = nn.functional.binary_cross_entropy_with_logits(logits_SCJ, gold_SCJ.float(), reduction="none")
        loss_SC = loss_SCJ.sum(dim=-1)  # padding has loss 0
        return mean_over_known(loss_SC, batch["known_SC"], batch.get("known_count"))

    def decode(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], count: int) -> Candidates:
        """The sentences with the highest logits; a score is the logit's sigmoid. The margin compares the highest logit
        with 0.
        """
        logits_SCJ = outputs["evidence_logits_SCJ"].float()
        ranges_SJ2 = arrange(batch["sentences_M3"], logits_SCJ.shape[0])
        first_SCJ, last_SCJ = ranges_SJ2.unsqueeze(1).expand(-1, logits_SCJ.shape[1], -1, -1).unbind(dim=-1)
        spans_SCK2, scores_SCK = best_places(first_SCJ, last_SCJ, logits_SCJ.sigmoid(), first_SCJ >= 0, count)
        return Candidates(spans_SCK2, scores_SCK, logits_SCJ.amax(dim=-1))

    def score_sentences(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], ranges_SJ2: Tensor) -> Tensor:
        """scores_SCJ: a sentence's logit; MASKED for one that the window's edge cuts and another window has whole."""
        logits_SCX = outputs["evidence_logits_SCJ"].float()
        own_SX2 = arrange(batch["sentences_M3"], logits_SCX.shape[0])
        same_SJX = (ranges_SJ2.unsqueeze(2) == own_SX2.unsqueeze(1)).all(dim=-1) & (ranges_SJ2[..., :1] >= 0)
        return logits_SCX.unsqueeze(2).masked_fill(~same_SJX.unsqueeze(1), MASKED).amax(dim=-1)


def arrange(sentences_M3: Tensor, sequences: int) -> Tensor:
    """ranges_SJ2: first and last token of each sequence's sentences, in the order of sentences_M3; padded with -1."""
    sequence_M, first_M, last_M = sentences_M3.unbind(dim=-1)
    same_MM = sequence_M.unsqueeze(1) == sequence_M
    place_M = same_MM.tril(diagonal=-1).sum(dim=-1)
    most = int(place_M.max()) + 1 if len(place_M) else 1
    ranges_SJ2 = sentences_M3.new_full((sequences, most, 2), -1)
    ranges_SJ2[sequence_M, place_M] = torch.stack([first_M, last_M], dim=-1)
    return ranges_SJ2


def gold_sentences(ranges_SJ2: Tensor, spans_G4: Tensor, outputs: int) -> Tensor:
    """gold_SCJ, bool: the sentences whose overlap with a gold span is at least half of the shorter of the two."""
    sequence_G, output_G, first_G, last_G = spans_G4.unbind(dim=-1)
    first_GJ, last_GJ = ranges_SJ2[sequence_G].unbind(dim=-1)
    first_G1, last_G1 = first_G.unsqueeze(-1), last_G.unsqueeze(-1)
    shared_GJ = torch.minimum(last_GJ, last_G1) - torch.maximum(first_GJ, first_G1) + 1
    shorter_GJ = torch.minimum(last_GJ - first_GJ, last_G1 - first_G1) + 1
    hit_GJ = (2 * shared_GJ >= shorter_GJ) & (first_GJ >= 0)
    hits_SCJ = spans_G4.new_zeros((len(ranges_SJ2), outputs, ranges_SJ2.shape[1]))
    return hits_SCJ.index_put_((sequence_G, output_G), hit_GJ.long(), accumulate=True) > 0
