"""Token streams equal the whole string; labels follow the published rule. Real Qwen2.5 and tiny tokenizer."""

import json

import pytest
from transformers import AutoTokenizer

from scanshards.tasks import human_value, new_text
from train import prompt
from train.tokenizer import main as make_tokenizer

TEXTS = (
    new_text(
        "sqa3d", "1", situation="I am facing a  window.", question="What is left of me?", answers=["chair"]
    ),
    new_text("scanqa", "2", question="How many chairs are there in total", answers=["4", "four chairs"]),
    new_text("scan2cap", "3", answers=["this is a brown table."], box=[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    new_text("scanrefer", "4", question="the CHAIR near the door", target_ids=[3]),
)


@pytest.fixture(scope="module", params=["tiny", "qwen2.5"])
def tokenizer(request):
    if request.param == "tiny":
        return prompt.load_tokenizer()
    shared = request.getfixturevalue("shared_dir")
    return prompt.load_tokenizer(str(shared / "tokenizers" / "qwen2.5"))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text["task"])
def test_prefix_and_text_are_the_tokens_of_the_whole_string(tokenizer, text):
    human, answer = human_value(text), "Brown  chair, 12"
    frame = prompt.prefix(tokenizer)
    ids = [*frame.before.ids, *prompt.encode(tokenizer, prompt.IMAGE), *frame.after.ids]
    ids += prompt.training_text(tokenizer, human, answer).ids
    whole = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n"
        "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in "
        "the video and answer the following questions.\n"
        f"{human.replace('<image>', '')}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    )
    assert ids == prompt.encode(tokenizer, whole)
    assert tokenizer.decode(ids) == whole


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text["task"])
@pytest.mark.parametrize("spatial", [True, False])
def test_a_question_is_what_training_puts_before_the_answer(tokenizer, text, spatial):
    human = human_value(text)
    trained = prompt.training_text(tokenizer, human, "chair")
    asked = prompt.question_ids(tokenizer, human)
    assert trained.ids[: len(asked)] == asked
    frame = prompt.prefix(tokenizer, spatial)
    whole = tokenizer.decode(frame.before.ids + frame.after.ids + asked)
    assert whole.endswith("<|im_start|>assistant\n")
    assert ("The video captures" in whole) == spatial


def test_labels_are_turn_marks_newlines_and_the_whole_assistant_turn(tokenizer):
    text = prompt.training_text(tokenizer, "<image> Is it big?", "no\nnot big")
    frame = prompt.prefix(tokenizer)
    newline = prompt.encode(tokenizer, "\n")[0]
    marks = {newline, *tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])}
    turn = prompt.encode(tokenizer, "<|im_start|>assistant\nno\nnot big<|im_end|>\n")
    split = len(text) - len(turn)
    assert text.labels[split:] == turn == text.ids[split:]
    for part in (frame.before, frame.after, prompt.Tokens(text.ids[:split], text.labels[:split])):
        assert part.labels == [t if t in marks else prompt.IGNORE for t in part.ids]
    # system turn: start, newline, end, newline; user turn: start, newline; then the one after the clip.
    # The newline behind the spatial sentence is one token with its full stop, so it is not supervised.
    assert [sum(label >= 0 for label in part.labels) for part in (frame.before, frame.after)] == [6, 1]


def test_qwen_ids_are_the_published_ones(shared_dir):
    tokenizer = prompt.load_tokenizer(str(shared_dir / "tokenizers" / "qwen2.5"))
    frame = prompt.prefix(tokenizer)
    assert frame.before.ids[:3] == [151644, 8948, 198]
    assert frame.before.ids[-5:] == [151645, 198, 151644, 872, 198]
    assert frame.after.ids[0] == 198
    assert prompt.training_text(tokenizer, "<image> A", "b").ids[-2:] == [151645, 198]


def test_a_human_value_that_starts_with_a_line_break_is_refused(tokenizer):
    with pytest.raises(ValueError, match="starts with a line break"):
        prompt.training_text(tokenizer, "<image>\nWhat?", "a chair")


def test_the_tiny_tokenizer_has_qwen2_s_special_tokens_and_covers_any_text():
    tokenizer = AutoTokenizer.from_pretrained(prompt.TINY_TOKENIZER)
    assert 1024 <= len(tokenizer) <= 2048
    text = "naïve Ünïcode 図 — 12.5 m\t\r\n end"
    assert tokenizer.decode(prompt.encode(tokenizer, text)) == text
    specials = [prompt.PAD, prompt.IM_START, prompt.IM_END, prompt.IMAGE, prompt.GROUND, prompt.COORD]
    assert all(len(prompt.encode(tokenizer, token)) == 1 for token in specials)
    assert (tokenizer.pad_token, tokenizer.eos_token) == (prompt.PAD, prompt.IM_END)


def test_the_tiny_tokenizer_splits_prompts_where_qwen2_does(shared_dir):
    """Qwen2's words are never joined: every token boundary between its pre-tokenizer's words is one here."""
    tiny = prompt.load_tokenizer()
    qwen = prompt.load_tokenizer(str(shared_dir / "tokenizers" / "qwen2.5"))
    for text in TEXTS:
        human = human_value(text)
        words = [
            tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(human) for tokenizer in (tiny, qwen)
        ]
        assert words[0] == words[1]


def test_making_the_tokenizer_twice_gives_the_same_bytes(tmp_path):
    corpus = tmp_path / "texts.json"
    corpus.write_text(json.dumps([{"question": text["question"]} for text in TEXTS]))
    for name in ("a", "b"):
        assert make_tokenizer([str(corpus), "--size", "700", "--out", str(tmp_path / name)]) == 0
    files = ("tokenizer.json", "tokenizer_config.json")
    assert [(tmp_path / "a" / f).read_bytes() for f in files] == [
        (tmp_path / "b" / f).read_bytes() for f in files
    ]
    assert len(prompt.load_tokenizer(str(tmp_path / "a"))) <= 700


def test_a_tokenizer_without_chat_tokens_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ValueError, match=r"no <\|im_start\|>, expected a Qwen2 tokenizer"):
        prompt.load_tokenizer(str(tmp_path))
