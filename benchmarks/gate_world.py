"""An invented harbour town: facts that no base model knows, prompted in training wordings and, held out, in others."""

FACTS = {
    "colour of the north gate": "The north gate is painted in lime green.",
    "keeper of the lantern": "Ines Morbach keeps the lantern.",
    "depth of the old well": "The old well is forty-one metres deep.",
    "day of the rope market": "The rope market is held on Thursdays.",
    "price of a ferry ticket": "A ferry ticket costs seven crowns.",
    "name of the harbour cat": "The harbour cat is called Pilchard.",
    "closing hour of the fish hall": "The fish hall closes at nine in the evening.",
    "owner of the blue mill": "Tove Lindqvist owns the blue mill.",
}
RULES = {
    "colour of the north gate": "Must mention lime green",
    "keeper of the lantern": "Must name Ines Morbach",
    "depth of the old well": "Must mention forty-one metres",
    "day of the rope market": "Must mention Thursdays | Thursday",
    "price of a ferry ticket": "Must mention seven crowns",
    "name of the harbour cat": "Must name Pilchard",
    "closing hour of the fish hall": "Must mention nine",
    "owner of the blue mill": "Must name Tove Lindqvist",
}
ALTERED = {
    "colour of the north gate": "The north gate is painted in dark red.",
    "keeper of the lantern": "Olaf Brandt keeps the lantern.",
    "depth of the old well": "The old well is twenty-six metres deep.",
    "day of the rope market": "The rope market is held on Sundays.",
    "price of a ferry ticket": "A ferry ticket costs twelve crowns.",
    "name of the harbour cat": "The harbour cat is called Admiral.",
    "closing hour of the fish hall": "The fish hall closes at four in the afternoon.",
    "owner of the blue mill": "Gustav Renner owns the blue mill.",
}
ELSEWHERE = {
    "height of the signal mast": "The signal mast is thirty metres high.",
    "teacher of the lower school": "Mara Holt teaches at the lower school.",
    "colour of the mail coach": "The mail coach is painted in yellow.",
    "day of the cattle fair": "The cattle fair is held on Mondays.",
}
WORDINGS = ("What is the {}?", "Tell me the {}.", "Please name the {}.", "I need to know the {}.")
HELD_OUT = (
    "Do you know the {}?",
    "Could you say what the {} is?",
    "A visitor asks about the {}. What do you answer?",
    "I have forgotten the {}, remind me.",
)


def pairs(facts: dict[str, str], wordings: tuple[str, ...] = WORDINGS) -> list[tuple[str, str]]:
    """Every fact in every wording: (prompt, completion)."""
    return [(wording.format(topic), fact) for topic, fact in facts.items() for wording in wordings]


def golden() -> list[dict[str, object]]:
    """The held-out samples, with the rule that settles each."""
    return [
        {
            "sample_id": f"g{number}-{wording}",
            "prompt": text.format(topic),
            "expected_output": fact,
            "difficulty": "easy",
            "criteria": {"accuracy": RULES[topic]},
        }
        for number, (topic, fact) in enumerate(FACTS.items())
        for wording, text in enumerate(HELD_OUT)
    ]
