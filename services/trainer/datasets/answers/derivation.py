"""What follows from feedback on an answer: rated samples, corrected ones, preferences and rankings. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.trainer.datasets.answers.answer import RecordedAnswer, Turns
from services.trainer.datasets.dataset import InvalidSample, Preference, Ranking, Sample

RATED, CORRECTED, PREFERRED = "feedback", "correction", "preferred"
"""Origins of the records."""
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Derived:
    """Records that follow from one person's feedback on one answer."""

    samples: tuple[Sample, ...] = ()
    preferences: tuple[Preference, ...] = ()


def opinion(answer: RecordedAnswer, rater: str, rating: float | None, correction: str) -> Derived:
    """A rating makes the answer a rated sample. A correction is a sample, and preferred over the answer.

    Raises:
        InvalidSample: the conversation, the answer or the correction is nothing that can be trained on.
    """
    context, prompt = prompt_of(answer.turns)
    samples, preferences = [], []
    if rating is not None:
        samples.append(
            Sample(answer.domain, prompt, answer.answer, rating, RATED, answer.generation_id, context, rater)
        )
    if correction:
        samples.append(Sample(answer.domain, prompt, correction, None, CORRECTED, answer.generation_id, context, rater))
        preferences.append(
            Preference(
                answer.domain, prompt, correction, answer.answer, CORRECTED, context, answer.generation_id, rater
            )
        )
    for sample in samples:
        sample.check()
    for pair in preferences:
        pair.check()
    return Derived(tuple(samples), tuple(preferences))


def preference(better: RecordedAnswer, worse: RecordedAnswer, rater: str) -> Preference:
    """One answer preferred over another, in the domain of the better one.

    Raises:
        InvalidSample: they answer different conversations, are the same text, or are nothing that can be trained on.
    """
    if better.turns != worse.turns:
        raise InvalidSample("preferred_over", "an answer to another conversation", "one to the same")
    context, prompt = prompt_of(better.turns)
    found = Preference(
        better.domain, prompt, better.answer, worse.answer, PREFERRED, context, better.generation_id, rater
    )
    found.check()
    return found


def ranking(
    answers: Mapping[str, RecordedAnswer], preferred: Collection[tuple[str, str]], rater: str
) -> Ranking | None:
    """The answers of one conversation in the order of one rater, from pairs (better id, worse id).

    None unless the pairs put three or more answers into one order: where two could stand in either, nothing is known.
    """
    order = total_order(preferred)
    if len(order) < 3:
        return None
    best = answers[order[0]]
    context, prompt = prompt_of(best.turns)
    texts = tuple(answers[one].answer for one in order)
    if len(set(texts)) < len(texts):
        return None
    return Ranking(best.domain, prompt, texts, order, context, rater)


def total_order(preferred: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """All that the pairs (better, worse) name, the best first; empty where they leave two in doubt or contradict."""
    left = {one for pair in preferred for one in pair}
    order: list[str] = []
    while left:
        beaten = {worse for better, worse in preferred if better in left}
        best = left - beaten
        if len(best) != 1:
            return ()
        order += best
        left -= best
    return tuple(order)


def prompt_of(turns: Turns) -> tuple[Turns, str]:
    """What precedes the last question, and the question.

    Raises:
        InvalidSample: the conversation does not end with a question, or has turns that no training knows.
    """
    if not turns or turns[-1][0] != "user":
        raise InvalidSample("messages", f"a last turn of {turns[-1][0] if turns else 'nobody'}", "one of user")
    unknown = next((role for role, _ in turns if role not in _ROLES), None)
    if unknown is not None:
        raise InvalidSample("messages", f"a turn of {unknown}", "turns of system, user and assistant")
    return tuple(one for one in turns[:-1] if one[1].strip()), turns[-1][1]
