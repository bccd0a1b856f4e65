"""Fixtures of text models with other heads: a class for each token, the answer to a question, zero-shot classes by NLI.

    python tests/reference/heads.py [--check] [CASE ...]     all cases

A case is a folder tests/fixtures/heads/CASE/ (`--check` compares instead of writing):

* `model/`: a tiny random checkpoint as `save_pretrained` writes it, with its tokenizer;
* `inputs.safetensors`: `input_ids`, `attention_mask` and, where the model has more than one type, `token_type_ids`; rows padded on the
  right. Two rows; of `bert-nli` three, the premise with the template filled with each of the classes;
* `expected.safetensors`, computed in float64 from the float32 weights: `logits` [rows, T, classes] (`bert-nli`: [rows, classes]), or
  `start_logits` and `end_logits` [rows, T]; `hidden.l` (what block l reads; the last one is what the last block gives), `attention.l` and
  `attention_grad.l`, of the sum over rows of the target's logit. Of questions it is `start.attention_grad.l` (of start_logits[s]),
  `end.attention_grad.l` (of end_logits[e]) and `answer.attention_grad.l` (of their sum). `bert-nli` also has `entailment_logits`,
  `probabilities` and `multi_probabilities` [classes], as the zero-shot-classification pipeline gives them without and with multi_label;
* `case.json`: texts, tokens, `targets` of each row ([token, class]; [s, e], the first and the last token of the answer; the class),
  `f32_error` (how far the unmodified float32 model is from that) and `notes`. Of token classes `entities`: a list for each text and
  aggregation_strategy, as the token-classification pipeline returns it; `tokens` of a group are ours. Of questions, for each row, `answers`
  (the best span of tokens), `aligned` (the same with align_to_words), `null` (the score of no answer) and `rules`: whether the largest
  start and end are out of the context, in the wrong order or too far apart. Scores are rounded to 7
  decimals; start and end count characters of the text, not bytes.

Transformers 5 has no question-answering pipeline any more: the choice is made by the functions it leaves for documents
(`select_starts_ends`), the alignment to words is transcribed from version 4.57. Making a case stops when the float32 model, a row
without padding, the reloaded folder or the tokenizer.json alone disagree, or when a case shows less than it is meant to.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Callable

import numpy as np
import torch
import transformers as tf
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.pipelines.document_question_answering import select_starts_ends

from cases import tokenizer, wordpieces
from families import SIZES, Case, Exact, randomise
from model import F32, F64
from towers import command, far

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures/heads")
WORDS = "example sport food polit ##ic in who where what maria rivera tok ##yo zo about".split()
TAGS, NLI = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), ("contradiction", "neutral", "entailment")
PREMISE, TEMPLATE, CLASSES = "The actor liked this quiet film about a great bird", "This example is {}.", ("sports", "politics", "food")
LONGEST, CANDIDATES = 15, 12               # max_answer_len; spans that are aligned to words for one answer


# --------------------------------------------------------------------------- the table
def bert():
    return tf.BertTokenizerFast(vocab={w: i for i, w in enumerate([*wordpieces(), *WORDS])})


def distilbert():
    return tf.DistilBertTokenizerFast(vocab={w: i for i, w in enumerate([*wordpieces(), *WORDS])})


def roberta():
    with tempfile.TemporaryDirectory() as tmp:
        return tokenizer("roberta", tmp)


@dataclass(frozen=True)
class Head:
    """How a case is made."""
    seed: int
    name: str                              # of its class in transformers
    tokenizer: Callable
    texts: tuple                           # of each row a text, or two
    config: dict = field(default_factory=dict)
    labels: tuple = ()
    notes: str = ""
    rename: tuple = ()


GROUPS = (
    "The pipeline takes each text alone, leaves out special tokens and gives each other token its most probable class. `none`: those not "
    "O; word is the vocabulary's piece (the text itself for the unknown token). `simple`: a tag is what follows B- or I- (a label without "
    "either counts as I- and is its own tag); a token joins the group of the token before it if the tags are equal and it is not B-; O "
    "groups like any other tag and is dropped at the end. score is the mean of the tokens' probabilities, start the first token's, end "
    "the last one's, word what the tokenizer's decoder makes of the pieces. ")
ANSWER = (
    "qa_outputs [2, D]: row 0 gives start_logits, row 1 end_logits. start and end are made probabilities each over the context's tokens "
    "and [CLS], all others being out; [CLS] is then set to 0. The answer has the largest start[s] * end[e] of s <= e < s + "
    "max_answer_len (15); score is that product, `null` is start * end of [CLS]. `answers` are characters from offset s to the end "
    "of token e; `aligned` (the pipeline's default) takes the best 12 spans, widens each to whole words, adds up the scores of equal "
    "answers (case ignored) and takes the best. ")

HEADS = {
    "bert-tokens": Head(
        85333, "BertForTokenClassification", bert,
        (("The actor Maria Rivera sang in Tokyo, not by the river!",), ("Zoé saw the unplayable dog.",)), labels=TAGS,
        notes=GROUPS + "BERT without a pooler; classifier [classes, D] on every token of the last hidden state. The tokenizer lowercases "
                       "and strips accents: word does, start and end are of the text."),
    "roberta-tokens": Head(
        74926, "RobertaForTokenClassification", roberta,
        (("The quiet actor Anna saw the river",), ("Zoé sang",)), dict(type_vocab_size=1, layer_norm_eps=1e-5), labels=TAGS,
        notes=GROUPS + "RoBERTa without a pooler; the head is one Linear `classifier` [classes, D] on every token (classifier.weight, "
                       "classifier.bias), where the sequence classifier has classifier.dense and classifier.out_proj. Pieces keep their Ġ "
                       "in word of `none`, and a group's word keeps the space before it, but offsets leave the space out. A character of two "
                       "bytes may be two tokens, both with the offsets of all of it."),
    "distilbert-qa": Head(
        73085, "DistilBertForQuestionAnswering", distilbert,
        (("Who sat?", "A quiet bird sat, not the unplayable actor"), ("What was it?", "It was a film")),
        dict(dim=24, n_layers=2, n_heads=2, hidden_dim=40),
        notes=ANSWER + "DistilBERT, no token types, no pooler and no pre_classifier."),
    "bert-qa": Head(
        87688, "BertForQuestionAnswering", bert,
        (("Who?", "Maria Rivera saw the film in Tokyo, not the quiet play, and liked it"), ("Who ran?", "The Dogs ran.")),
        notes=ANSWER + "BERT without a pooler. Types: 0 up to the question's [SEP], 1 for the context and its [SEP]."),
    "bert-nli": Head(
        75178, "BertForSequenceClassification", bert, tuple((PREMISE, TEMPLATE.format(c)) for c in CLASSES), labels=NLI,
        notes="BERT's sequence classifier (pooler with tanh) on premise and hypothesis. The pipeline runs each pair alone, unpadded. "
              "Entailment is the first label whose name begins with entail (in any case). probabilities: softmax of the classes' "
              "entailment_logits; multi_probabilities, and for a single class always: of each class the softmax of [contradiction, "
              "entailment], contradiction being class 0 whatever it is called, or the last one if entailment is class 0."),
}


# --------------------------------------------------------------------------- making
def build(name: str) -> Case:
    h = HEADS[name]
    torch.manual_seed(h.seed)
    tok = h.tokenizer()
    model, named = getattr(tf, h.name), {"id2label": dict(enumerate(h.labels)), "label2id": {k: i for i, k in enumerate(h.labels)}}
    config = dict({} if "dim" in h.config else SIZES, vocab_size=len(tok), max_position_embeddings=32, pad_token_id=tok.pad_token_id)
    config |= {k: getattr(tok, k) for k in ("bos_token_id", "eos_token_id") if getattr(tok, k) is not None}
    config = model.config_class(**config | h.config | (named if h.labels else {}))
    model = model._from_config(config, attn_implementation="eager")
    randomise(model, h.seed)
    if h.labels == TAGS:
        with torch.no_grad():
            model.classifier.bias[0] += 0.8                                         # most tokens are no entities
    batch = tok.pad([tok(*t, return_token_type_ids=True) for t in h.texts], return_tensors="pt")
    keys = ["input_ids", "attention_mask"] + ["token_type_ids"] * (getattr(config, "type_vocab_size", 0) > 1)
    tokens = [tok.convert_ids_to_tokens(r) for r in batch["input_ids"].tolist()]
    assert tok.unk_token not in sum(tokens, []), (name, tokens)
    return Case(name, h, model.eval(), {k: batch[k] for k in keys}, tok, {"texts": h.texts, "tokens": tokens})


def exactly(model: nn.Module):
    return Exact() if model.dtype == F64 else contextlib.nullcontext()


def run(case: Case, model: nn.Module, targets=(), inputs=None) -> dict:
    """A pass and, if there are targets, the gradients of their logits."""
    with exactly(model):
        out = model(**inputs or case.inputs, output_attentions=True, output_hidden_states=True)
    got = {k: out[k] for k in ("logits", "start_logits", "end_logits") if k in out}
    got |= {f"{k}.{l}": x for k, xs in (("hidden", out.hidden_states), ("attention", out.attentions)) for l, x in enumerate(xs)}
    if "logits" in got:
        scores = {"": [out.logits[b][tuple(t) if isinstance(t, list) else t] for b, t in enumerate(targets)]}
    else:
        scores = {"start.": [out.start_logits[b, s] for b, (s, _) in enumerate(targets)],
                  "end.": [out.end_logits[b, e] for b, (_, e) in enumerate(targets)]}
        scores["answer."] = scores["start."] + scores["end."]
    for at, picked in scores.items() if targets else ():
        grads = torch.autograd.grad(torch.stack(picked).sum(), out.attentions, retain_graph=True)
        got |= {f"{at}attention_grad.{l}": x for l, x in enumerate(grads)}
    return {k: v.detach() for k, v in got.items()}


# --------------------------------------------------------------------------- what the pipelines make of it
class Grouped(tf.TokenClassificationPipeline):
    """Groups that know their tokens."""

    def group_sub_entities(self, entities: list) -> dict:
        return super().group_sub_entities(entities) | {"tokens": [e["index"] for e in entities]}


def plain(found: dict) -> dict:
    return {k: round(float(v), 7) if k == "score" else v for k, v in found.items()}


def entities(case: Case, model: nn.Module) -> dict:
    pipe = Grouped(model=model, tokenizer=case.processor, device="cpu")
    with exactly(model):
        return {how: [[plain(x) for x in pipe(t, aggregation_strategy=how)] for t, in case.info["texts"]] for how in ("none", "simple")}


def spans(case: Case, got: dict) -> dict:
    """Of each row the best span of tokens, the best answer of whole words, no answer, and the rules that the choice depends on."""
    found: dict = {"answers": [], "aligned": [], "null": [], "rules": []}
    for b, ((question, context), n) in enumerate(zip(case.info["texts"], case.lengths)):
        row = case.processor(question, context)[0]                                  # an encoding
        outside = np.array([[s != 1 and i != case.processor.cls_token_id for s, i in zip(row.sequence_ids, row.ids)]], dtype=int)
        at = [got[k][b:b + 1, :n].numpy() for k in ("start_logits", "end_logits")]
        *best, null = select_starts_ends(*at, outside, np.ones_like(outside), 1e6, CANDIDATES, True, LONGEST)
        best = [(int(s), int(e), float(p)) for s, e, p in zip(*best) if p > 0]
        s, e, score = best[0]
        pick = lambda start, end, p: dict(score=p, start=start, end=end, answer=context[start:end])
        whole = lambda s, e: (row.word_to_chars(row.token_to_word(s), 1)[0], row.word_to_chars(row.token_to_word(e), 1)[1])
        words: dict = {}
        for i, j, p in best:
            words.setdefault(context[slice(*whole(i, j))].lower(), pick(*whole(i, j), 0.0))["score"] += p
        first, second, *_ = sorted(words.values(), key=lambda x: -x["score"])
        assert score > 1.05 * best[1][2] and first["score"] > 1.05 * second["score"], (case.name, b, "too close to a tie")
        assert (first["start"], first["end"]) == whole(s, e), (case.name, b, "several spans together beat the best one")
        inside = np.flatnonzero(1 - outside[0])[1:]
        i, j = (inside[x[0, inside].argmax()] for x in at)
        rules = {"context": not {x.argmax() for x in at} <= {*inside}, "order": i > j, "length": j - i >= LONGEST}
        found["answers"].append({"tokens": [s, e]} | plain(pick(row.offsets[s][0], row.offsets[e][1], score)))
        found["aligned"].append(plain(first))
        found["null"].append(round(float(null), 7))
        found["rules"].append([k for k, needed in rules.items() if needed])
    return found


def zero_shot(case: Case, model: nn.Module, got: dict) -> dict:
    """The pipeline's probabilities, in the order of the classes."""
    pipe = tf.ZeroShotClassificationPipeline(model=model, tokenizer=case.processor, device="cpu")
    arrays = {"entailment_logits": got["logits"][:, NLI.index("entailment")]}
    for at, multi in (("probabilities", False), ("multi_probabilities", True)):
        with exactly(model):
            said = pipe(PREMISE, list(CLASSES), hypothesis_template=TEMPLATE, multi_label=multi)
        scores = dict(zip(said["labels"], said["scores"]))
        arrays[at] = torch.tensor([scores[c] for c in CLASSES], dtype=F64)
    return arrays


def choose(case: Case, model: nn.Module, got: dict) -> tuple[list, dict]:
    """The targets, and what case.json says of the predictions."""
    if "start_logits" in got:
        found = spans(case, got)
        return [x["tokens"] for x in found["answers"]], found
    if case.name == "bert-nli":
        entailment = NLI.index("entailment")
        return [entailment] * len(CLASSES), {"premise": PREMISE, "template": TEMPLATE, "classes": CLASSES, "labels": NLI}
    found, best = entities(case, model), got["logits"].argmax(-1)
    first = next((x["tokens"][1] for x in found["simple"][0] if len(x["tokens"]) > 1), 1)
    return [[first, int(best[0, first])], [2, int(best[1, 2] + 1) % len(TAGS)]], {"labels": TAGS, "entities": found}


# --------------------------------------------------------------------------- checking
def check_shown(case: Case, got: dict) -> None:
    """The predictions are far from ties, differ, and need the rules to be found."""
    name, info, ids = case.name, case.info, case.inputs["attention_mask"].bool()
    if name == "bert-nli":
        p = [got[k].sort(descending=True).values for k in ("probabilities", "multi_probabilities")]
        assert min(float((x[:-1] - x[1:]).min()) for x in p) > 0.02, (name, "too close to a tie", p)
        assert not torch.equal(got["probabilities"].argsort(), got["multi_probabilities"].argsort()), (name, "one order", p)
    elif "logits" in got:
        top = got["logits"].topk(2).values
        assert float((top[..., 0] - top[..., 1])[ids].min()) > 0.02, (name, "too close to a tie")
        tags = [x["entity"] for row in info["entities"]["none"] for x in row]
        groups = [[got["logits"][b, i].argmax() for i in x["tokens"]] for b, row in enumerate(info["entities"]["simple"]) for x in row]
        whole = [g for g in groups if len(g) > 1 and TAGS[g[0]] == "B-PER"]
        assert whole and len(groups) > len(whole) and len(groups) < len(tags) < int(ids.sum()) - 4 and len(set(tags)) > 2, (name, tags)
        assert all("�" not in x["word"] for row in info["entities"]["simple"] for x in row), (name, "half a character")
    else:
        assert {x for row in info["rules"] for x in row} == {"context", "order", *["length"] * (name == "bert-qa")}, (name, info["rules"])
        assert any(x["tokens"][0] < x["tokens"][1] for x in info["answers"]), (name, "answers of one token")
        pairs = [*zip(info["answers"], info["aligned"])]
        aligned = [any(x["answer"] != y["answer"] for x, y in pairs), any(x["score"] < y["score"] for x, y in pairs)]
        assert all(aligned), (name, "nothing to align")


def check(case: Case, got: dict, targets: list) -> None:
    """Attention not uniform, padding without influence."""
    for k, v in got.items():
        if "attention_grad" in k:
            assert float(v.abs().max()) > 1e-3, (case.name, k, "nothing depends on attention")
        elif "attention" in k:
            assert float(v.amax(-1).mean()) > 1.5 / v.shape[-1], (case.name, k, "attention is close to uniform")

    def cut(k: str, v: Tensor, b: int, n: int) -> Tensor:
        v = v[b:b + 1]
        return v[..., :n, :n] if "attention" in k else v[:, :n] if v.dim() > 2 or k != "logits" else v

    padded = [(b, n) for b, n in enumerate(case.lengths) if n < case.inputs["input_ids"].shape[1]]
    assert padded and (len(case.lengths) > 2 or padded[-1][0] == 1), (case.name, "padding", case.lengths)
    for b, n in padded:
        alone = run(case, case.exact(), targets[b:b + 1], {k: v[b:b + 1, :n] for k, v in case.inputs.items()})
        error = far(alone, {k: cut(k, got[k], b, n) for k in alone})
        assert max(error.values()) < 1e-10, (case.name, "without padding", b, error)


def check_reload(case: Case, folder: str, got: dict) -> None:
    """The saved folder gives the logits, its tokenizer.json the ids."""
    with torch.no_grad():
        again = case.load_model(folder)(**case.inputs)
    for k in got.keys() & {"logits", "start_logits", "end_logits"}:
        assert float((again[k] - got[k]).abs().max()) < 1e-5, (case.name, "reloaded", k)
    bare, auto = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), tf.AutoTokenizer.from_pretrained(folder)
    for text, ids, n in zip(case.info["texts"], case.inputs["input_ids"].tolist(), case.lengths):
        assert bare.encode(*text).ids == ids[:n] == auto(*text)["input_ids"], (case.name, "tokenizer", text)


# --------------------------------------------------------------------------- writing
def make(name: str, out: str) -> None:
    case = build(name)
    exact = case.exact()
    targets, found = choose(case, exact, run(case, exact))
    case.info |= found
    got = run(case, exact, targets)
    error = far(got, run(case, case.model, targets))
    assert max(error.values()) < 5e-5, (name, error)
    check(case, got, targets)
    if name == "bert-nli":
        got |= zero_shot(case, exact, got)
    check_shown(case, got)
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    case.save_model(os.path.join(folder, "model"))
    check_reload(case, os.path.join(folder, "model"), got)
    save_file({k: v.contiguous().clone() for k, v in case.inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.to(F32).contiguous().clone() for k, v in got.items()}, os.path.join(folder, "expected.safetensors"))
    config = case.model.config
    meta = {"case": name, "model_type": config.model_type, "architecture": config.architectures[0], "lengths": case.lengths, **case.info,
            "targets": targets, "f32_error": {k: float(f"{v:.2g}") for k, v in error.items()}, "notes": case.family.notes.strip()}
    with open(os.path.join(folder, "case.json"), "w") as f:
        f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in meta.items()) + "\n}\n")
    for path, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(path, file), 0o644)


if __name__ == "__main__":
    sys.exit(command(__doc__, OUT, HEADS, make))
