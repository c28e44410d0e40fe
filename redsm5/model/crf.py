"""A linear-chain conditional random field over each output's tags O, B, I (Lafferty et al. 2001, section 3), exact.

A path assigns a tag to each token of the post's text; its score is the sum of its emissions and of the transitions
between neighbours, where the token before the text counts as O. I follows B or I only. Other tokens are not in the
chain.

All quantities are computed on an equivalent chain with four states, in which O is split into BEFORE and AFTER the first
span: the paths of the two chains correspond one to one, the path without a span stays in BEFORE, and those with a span
end in another state. A step is a matrix of scores from state to state; tokens that are not in the chain have the
identity, so that sequences of different lengths can be batched.

Shapes: S sequences, C outputs, T tokens, H hidden, K candidates, G gold spans, J sentences; 3 tags, 4 states.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redsm5.model.spans import MASKED, Candidates, best_places, mean_over_known, tokens_in
from redsm5.sections import ModelConfig

O, B, I = 0, 1, 2  # noqa: E741
BEFORE, BEGIN, INSIDE, AFTER = 0, 1, 2, 3
TAG_OF_STATE = (O, B, I, O)
STEPS = ((BEFORE, BEGIN), (BEGIN, INSIDE, AFTER), (BEGIN, INSIDE, AFTER), (BEGIN, AFTER))  # from each state
EVIDENCE_PRIOR = 0.01  # rough share of tokens that are evidence of a given symptom


class BioCrfHead(nn.Module):
    """Emissions from a linear layer over the encoder's states (Lample et al. 2016, section 2.2), and one transition
    matrix per output.

    The initial bias of O makes evidence as rare as EVIDENCE_PRIOR (Lin et al. 2017, section 4.1): with equal
    probabilities of the tags, the initial loss would be T log 3 nats and would dominate the other task's.
    """

    def __init__(self, config: ModelConfig, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.evidence_dropout)
        self.linear = nn.Linear(hidden_size, outputs * 3)
        self.transitions_C33 = nn.Parameter(torch.zeros(outputs, 3, 3))
        with torch.no_grad():
            odds = (1 - EVIDENCE_PRIOR) / EVIDENCE_PRIOR
            self.linear.bias.view(outputs, 3)[:, O] += torch.tensor(odds).log()

    def forward(self, states_STH: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """evidence_emissions_SCT3."""
        S, T, _ = states_STH.shape
        emissions_STC3 = self.linear(self.dropout(states_STH)).view(S, T, -1, 3)
        return {"evidence_emissions_SCT3": emissions_STC3.transpose(1, 2).float()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """The negative log-likelihood of the gold path, averaged over the outputs whose evidence is known.

        It is not divided by the number of tokens, so it is -log p of an output's evidence in nats, like the other
        heads' losses, and a task weight means the same with each head.
        """
        emissions_SCT3, text_mask_ST = outputs["evidence_emissions_SCT3"], batch["text_mask_ST"]
        transitions_C33 = self.transitions_C33.float()
        _, C, T, _ = emissions_SCT3.shape
        tags_SCT = gold_tags(batch["spans_G4"], (len(text_mask_ST), C, T))
        gold_SC = path_score(emissions_SCT3, transitions_C33, text_mask_ST, tags_SCT)
        all_SC = log_partition(chain(emissions_SCT3, transitions_C33, text_mask_ST))
        return mean_over_known(all_SC - gold_SC, batch["known_SC"], batch.get("known_count"))

    def decode(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], count: int) -> Candidates:
        """The spans of the best path with at least one span; a span's score is the mean over its tokens of the
        posterior probability of B or I. The margin is log p(a path with a span) - log p(the path without).
        """
        device, text_mask_ST = batch["text_mask_ST"].device, batch["text_mask_ST"].cpu()
        steps_SCT44 = self._steps(outputs, text_mask_ST)
        posterior_SCT, margin_SC = posteriors(steps_SCT44)
        states_SCT = best_path_with_span(steps_SCT44)
        states_SCT = states_SCT.masked_fill(text_mask_ST.unsqueeze(1) == 0, BEFORE)
        found = spans_of(states_SCT, posterior_SCT, count)
        spans_SCK2, scores_SCK, margin_SC = (tensor.to(device) for tensor in (*found, margin_SC.float()))
        return Candidates(spans_SCK2, scores_SCK, margin_SC)

    def score_sentences(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], ranges_SJ2: Tensor) -> Tensor:
        """scores_SCJ: like a span's score, the mean over the sentence's tokens of the posterior probability of B or I;
        MASKED for a sentence of which the window has none.
        """
        posterior_SCT, _ = posteriors(self._steps(outputs, batch["text_mask_ST"].cpu()))
        inside_SJT = tokens_in(ranges_SJ2.cpu(), posterior_SCT.shape[-1]).double()
        length_S1J = inside_SJT.sum(dim=-1).unsqueeze(1)
        mean_SCJ = torch.einsum("sct,sjt->scj", posterior_SCT, inside_SJT) / length_S1J.clamp(min=1)
        return mean_SCJ.masked_fill(length_S1J == 0, MASKED).to(ranges_SJ2.device)

    def _steps(self, outputs: Mapping[str, Tensor], text_mask_ST: Tensor) -> Tensor:
        """steps_SCT44 on the CPU, since launching thousands of tiny sequential steps on a GPU is slower. In float64,
        since in float32 a probability from the difference of two scores in the thousands would have only three correct
        digits.
        """
        emissions_SCT3, transitions_C33 = outputs["evidence_emissions_SCT3"].cpu().double(), self.transitions_C33.cpu()
        return chain(emissions_SCT3, transitions_C33.detach().double(), text_mask_ST)


def chain(emissions_SCT3: Tensor, transitions_C33: Tensor, text_mask_ST: Tensor) -> Tensor:
    """steps_SCT44: the score of each transition between states at each token; MASKED if the transition
    is not allowed.
    """
    tags = list(TAG_OF_STATE)
    transitions_C44 = transitions_C33[:, tags][:, :, tags]
    allowed_44 = torch.tensor([[j in after for j in range(4)] for after in STEPS], device=emissions_SCT3.device)
    steps_SCT44 = emissions_SCT3[..., tags].unsqueeze(-2) + transitions_C44[:, None]
    steps_SCT44 = steps_SCT44.masked_fill(~allowed_44, MASKED)
    stay_44 = emissions_SCT3.new_full((4, 4), MASKED).fill_diagonal_(0.0)
    return torch.where(text_mask_ST[:, None, :, None, None].bool(), steps_SCT44, stay_44)


def log_partition(steps_SCT44: Tensor) -> Tensor:
    """log Z_SC over all paths. Neighbouring steps are multiplied in pairs, so T steps take log2 T rounds: the forward
    algorithm is a product of matrices, which is associative (Hassan et al. 2021).
    """
    while (T := steps_SCT44.shape[2]) > 1:
        odd = steps_SCT44[:, :, T - T % 2 :]
        left, right = steps_SCT44[:, :, 0 : T - 1 : 2], steps_SCT44[:, :, 1:T:2]
        joined = (left.unsqueeze(-1) + right.unsqueeze(-3)).logsumexp(dim=-2)
        steps_SCT44 = torch.cat([joined, odd], dim=2)
    return steps_SCT44[:, :, 0, BEFORE].logsumexp(dim=-1)


def posteriors(steps_SCT44: Tensor) -> tuple[Tensor, Tensor]:
    """p(tag is B or I)_SCT by the forward-backward algorithm, and log-odds_SC of at least one span against none."""
    forward_TSC4 = _prefixes(steps_SCT44, _log_sum, _at_start(steps_SCT44))
    backwards = steps_SCT44.flip(2).transpose(-1, -2)
    backward_TSC4 = _prefixes(backwards, _log_sum, torch.zeros_like(steps_SCT44[:, :, 0, 0])).flip(0)
    last_SC4 = forward_TSC4[-1]
    both_TSC4 = forward_TSC4[1:] + backward_TSC4[1:] - last_SC4.logsumexp(dim=-1, keepdim=True)
    posterior_TSC = both_TSC4[..., BEGIN:AFTER].exp().sum(dim=-1)
    return posterior_TSC.permute(1, 2, 0), last_SC4[..., BEGIN:].logsumexp(dim=-1) - last_SC4[..., BEFORE]


def best_path_with_span(steps_SCT44: Tensor) -> Tensor:
    """states_SCT of the best path that does not end in BEFORE, by the Viterbi algorithm (1967)."""
    best_TSC4 = _prefixes(steps_SCT44, _maximum, _at_start(steps_SCT44))
    state_SC1 = best_TSC4[-1][..., BEGIN:].argmax(dim=-1, keepdim=True) + BEGIN
    states = []
    for best_SC4, step_SC44 in zip(reversed(best_TSC4[:-1]), reversed(steps_SCT44.unbind(2)), strict=True):
        states.append(state_SC1)
        into_SC4 = step_SC44.gather(-1, state_SC1.unsqueeze(-2).expand(*state_SC1.shape[:2], 4, 1)).squeeze(-1)
        state_SC1 = (best_SC4 + into_SC4).argmax(dim=-1, keepdim=True)
    return torch.cat(states[::-1], dim=-1)


def spans_of(states_SCT: Tensor, posterior_SCT: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """spans_SCK2 and scores_SCK of a path: its spans with the highest mean posterior."""
    T = states_SCT.shape[-1]
    goes_on_SCT = F.pad(states_SCT[..., 1:] == INSIDE, (0, 1), value=False)
    begins_SCT = states_SCT == BEGIN
    ends_SCT = (begins_SCT | (states_SCT == INSIDE)) & ~goes_on_SCT
    token_SCT = torch.arange(T).expand_as(states_SCT)
    last_SCT = token_SCT.masked_fill(~ends_SCT, T - 1).flip(-1).cummin(dim=-1).values.flip(-1)
    through_SCT = posterior_SCT.cumsum(dim=-1)
    sum_SCT = through_SCT.gather(-1, last_SCT) - through_SCT + posterior_SCT
    score_SCT = (sum_SCT / (last_SCT - token_SCT + 1)).clamp(0.0, 1.0).float()
    return best_places(token_SCT, last_SCT, score_SCT, begins_SCT, count)


def gold_tags(spans_G4: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """tags_SCT of gold spans: B and then I. Overlapping spans become one; spans that only touch stay separate."""
    sequence_G, output_G, first_G, last_G = spans_G4.unbind(dim=-1)
    token_T = torch.arange(shape[2], device=spans_G4.device)
    first_GT = first_G.unsqueeze(-1) == token_T
    later_GT = (first_G.unsqueeze(-1) < token_T) & (token_T <= last_G.unsqueeze(-1))
    counts = spans_G4.new_zeros((2, *shape))
    for tag_SCT, hit_GT in zip(counts, (first_GT, later_GT), strict=True):
        tag_SCT.index_put_((sequence_G, output_G), hit_GT.long(), accumulate=True)
    return torch.where(counts[1] > 0, I, torch.where(counts[0] > 0, B, O))


def path_score(emissions_SCT3: Tensor, transitions_C33: Tensor, text_mask_ST: Tensor, tags_SCT: Tensor) -> Tensor:
    """score_SC of the path with these tags."""
    text_S1T1 = text_mask_ST[:, None, :, None]
    tag_SCT3 = F.one_hot(tags_SCT, 3) * text_S1T1
    # The token before the text has no tag of its own and counts as O.
    earlier_SCT = F.pad(tags_SCT, (1, 0), value=O)[..., :-1]
    steps_SC33 = torch.einsum("scti,sctj->scij", F.one_hot(earlier_SCT, 3).float(), tag_SCT3.float())
    return (emissions_SCT3 * tag_SCT3).sum(dim=(-1, -2)) + (steps_SC33 * transitions_C33).sum(dim=(-1, -2))


def _prefixes(steps_SCT44: Tensor, reduce: Callable[[Tensor], Tensor], start_SC4: Tensor) -> Tensor:
    """scores_TSC4, with T + 1 rows: over all paths from the start to each state, combined by `reduce`."""
    scores = [start_SC4]
    for step_SC44 in steps_SCT44.unbind(2):
        scores.append(reduce(scores[-1].unsqueeze(-1) + step_SC44))
    return torch.stack(scores)


def _at_start(steps_SCT44: Tensor) -> Tensor:
    start_SC4 = torch.full_like(steps_SCT44[:, :, 0, 0], MASKED)
    start_SC4[..., BEFORE] = 0.0
    return start_SC4


def _log_sum(scores_SC44: Tensor) -> Tensor:
    return scores_SC44.logsumexp(dim=-2)


def _maximum(scores_SC44: Tensor) -> Tensor:
    return scores_SC44.amax(dim=-2)
