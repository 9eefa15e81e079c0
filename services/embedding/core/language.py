"""Guess a text's language from its script and its commonest words; a hint, not a verdict."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

_READ_CHARACTERS: Final = 2000
_SCRIPTS: Final = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("fa", re.compile(r"[پچژگ]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
"""Tried in order: Japanese has kanji too, and Ukrainian and Persian letters of their own."""
_SCRIPT_SHARE: Final = 0.2
"""Of the letters; fewer are a quotation."""
_LAST_LATIN: Final = "\u036f"
"""Accents included."""
_OWN_LETTERS: Final = frozenset(("uk", "fa"))
"""Told from a larger script by a few letters, so their share is not asked for."""
_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_COMMON: Final[Mapping[str, str]] = {
    "en": "a the of and to in is that it for you with on are this what how be not or have from "
    "by at an can do does which write my if was were your explain there me who when why",
    "de": "der die das und ist nicht ein eine zu den mit von für auf wie was ich sie es im dem "
    "kann wird sind auch auf bitte warum schreibe erkläre wer wo mir einen des oder",
    "fr": "le la les des et est un une du que qui dans pour pas sur avec ce je vous il au plus "
    "par comment quel quelle quoi pourquoi sont moi mon écris explique où aux ou c'est",
    "es": "el la los las de y es un una que en por para con no se lo del al como qué cómo cuál "
    "está son más su mi escribe explica dónde quién cuántos hay porque",
    "it": "il lo la gli le di e è un una che in per con non del della come cosa sono si al da "
    "mi più perché quale scrivi spiega dove chi quanti nel alla",
    "pt": "o a os as de e é um uma que em para com não do da no na como qual por se mais são "
    "dos meu você escreva explique onde quem quantos ao está porque",
    "nl": "de het een en van is dat niet in op te zijn voor met die wat hoe ik je er aan kan "
    "schrijf waarom welke maar ook naar leg uit wie waar mijn",
    "sv": "och att det är en ett som på för med av inte den till jag hur vad kan om skriv varför "
    "har var från vilken eller de du mig min när",
    "pl": "i w na z się nie jest to do że jak co o po za dla czy ile który napisz dlaczego kto "
    "gdzie są od mi ten jaka jaki lub oraz przez",
    "tr": "ve bir bu için ile ne mi da de nasıl çok olan var daha gibi kadar nedir neden bana "  # noqa: RUF001 - Turkish
    "yaz açıkla kim hangi değil ama kaç mı olarak",  # noqa: RUF001 - Turkish
}
_LANGUAGES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    word: tuple(tag for tag, words in _COMMON.items() if word in words.split())
    for words in _COMMON.values()
    for word in words.split()
}


def language(text: str) -> str:
    """Return the BCP 47 tag of the likeliest language of *text*, or "" where none stands out."""
    text = text[:_READ_CHARACTERS]
    return _by_script(text) or _by_words(text)


def _by_script(text: str) -> str:
    letters = sum(map(str.isalpha, text))
    for tag, script in _SCRIPTS:
        found = len(script.findall(text))
        foreign = sum(c.isalpha() and c > _LAST_LATIN for c in text) if found else 0
        share = foreign if tag in _OWN_LETTERS else found
        if found and share >= _SCRIPT_SHARE * letters:
            return tag
    return ""


def _by_words(text: str) -> str:
    """Count common words; one that several languages share counts as a part for each."""
    votes: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        tags = _LANGUAGES_OF.get(word, ())
        for tag in tags:
            votes[tag] += 12 // len(tags)
    ranked = votes.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]
