"""The language hint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedding.core.language import language


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("What is the capital of France?", "en"),
        ("Write a function that sorts a list", "en"),
        ("Wie heißt die Hauptstadt von Frankreich?", "de"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("¿Cuál es la capital de Francia?", "es"),
        ("Qual è la capitale della Francia?", "it"),
        ("Qual é a capital da França e por que não Lyon?", "pt"),
        ("Wat is de hoofdstad van Frankrijk?", "nl"),
        ("Vad är huvudstaden i Frankrike och varför?", "sv"),
        ("Jaka jest stolica Francji i dlaczego nie Lyon?", "pl"),
        ("Bu kelime ne demek ve neden bu kadar uzun?", "tr"),
        ("Какой город столица Франции?", "ru"),
        ("Яке місто є столицею Франції?", "uk"),
        ("法国的首都是哪里?", "zh"),
        ("フランスの首都はどこですか", "ja"),
        ("프랑스의 수도는 어디입니까", "ko"),
        ("ما هي عاصمة فرنسا؟", "ar"),
        ("פריז היא הבירה", "he"),
        ("Ποια είναι η πρωτεύουσα;", "el"),
        ("फ्रांस की राजधानी क्या है", "hi"),
        ("How do you say 你好 in English when you are in a hurry?", "en"),
    ],
)
def test_common_languages_are_told_apart(text: str, tag: str) -> None:
    """A plain sentence, or a quotation inside one, is enough."""
    assert language(text) == tag


@pytest.mark.parametrize("text", ["12 * 7", "xkcd", "...", "", "\N{GRINNING FACE}"])
def test_no_guess_without_evidence(text: str) -> None:
    """Figures, marks and unknown words have no language."""
    assert language(text) == ""


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    """No text breaks it, and what comes back is a tag of two letters or nothing."""
    assert len(language(text)) in {0, 2}
