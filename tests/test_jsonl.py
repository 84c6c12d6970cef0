"""The user's own data: read as they are, split by prompt, and every fault named with its place and its cure."""

import json

import pytest

from skillweave.errors import BadData, NotFound
from skillweave.task import Example, assert_disjoint, check_task
from skillweave.tasks import load_data

ROWS = [{"prompt": f"say {k}", "completion": f"It is {k}."} for k in range(200)]


def write(folder, name, *lines):
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def jsonl(folder, rows, name="data.jsonl"):
    return write(folder, name, *(json.dumps(row, ensure_ascii=False) for row in rows))


def all_of(task, split="all"):
    return task.take(task.size(split), split)


def fault(path):
    """The message and hint of the BadData that `path` raises; both have to be there."""
    with pytest.raises(BadData) as caught:
        load_data(path)
    assert caught.value.message.endswith((".", "?")) and caught.value.hint
    return caught.value.message


def test_rows_come_in_the_order_of_the_file(tmp_path):
    task = load_data(jsonl(tmp_path, ROWS))
    assert all_of(task) == [Example(row["prompt"], row["completion"]) for row in ROWS]
    assert (task.name, task.template, task.size("all")) == ("data", "{input}", 200)
    assert task.prompt("as it is") == "as it is"
    assert task.fields(task.example(0, "all"), "It is 0.") == {}


def test_a_file_keeps_the_contract(tmp_path):
    task = load_data(jsonl(tmp_path, ROWS))
    check_task(task)
    assert_disjoint(task)


def test_every_row_is_in_one_of_three_splits(tmp_path):
    task = load_data(jsonl(tmp_path, ROWS))
    parts = {split: {e.prompt for e in all_of(task, split)} for split in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 200 and set.union(*parts.values()) == {row["prompt"] for row in ROWS}
    assert 140 <= len(parts["train"]) <= 180 and min(map(len, parts.values())) >= 8
    grown = load_data(jsonl(tmp_path, [*ROWS, {"prompt": "new", "completion": "row"}], "grown.jsonl"))
    for split, prompts in parts.items():
        assert {e.prompt for e in all_of(grown, split)} - {"new"} == prompts


def test_rows_with_the_same_prompt_stay_together(tmp_path):
    twice = [{"prompt": f" say  {k}", "completion": "again"} for k in range(200)]
    task = load_data(jsonl(tmp_path, ROWS + twice))
    assert_disjoint(task)
    for split in ("train", "valid", "test"):
        examples = all_of(task, split)
        keys = [" ".join(e.prompt.split()) for e in examples]
        assert all(keys.count(key) == 2 for key in keys)


def test_the_seed_orders_but_does_not_choose(tmp_path):
    path = jsonl(tmp_path, ROWS)
    one, other = load_data(path, seed=1), load_data(path, seed=2)
    assert all_of(one, "train") != all_of(other, "train")
    assert {e.prompt for e in all_of(one, "train")} == {e.prompt for e in all_of(other, "train")}
    assert all_of(one, "train") == all_of(load_data(path, seed=1), "train")
    assert one.digest() == other.digest()


def test_the_digest_is_that_of_the_rows(tmp_path):
    digest = load_data(jsonl(tmp_path, ROWS)).digest()
    more = [row | {"tags": {"kind": "x"}, "note": 3} for row in ROWS]
    assert load_data(jsonl(tmp_path, more, "other.jsonl")).digest() == digest
    changed = [*ROWS[:-1], ROWS[-1] | {"completion": "It is 200."}]
    assert load_data(jsonl(tmp_path, changed, "changed.jsonl")).digest() != digest
    swapped = [{"prompt": "a", "completion": "bc"}], [{"prompt": "ab", "completion": "c"}]
    assert len({load_data(jsonl(tmp_path, rows)).digest() for rows in swapped}) == 2


def test_other_columns_are_left_out(tmp_path):
    task = load_data(jsonl(tmp_path, [{"id": 7, "prompt": "p", "completion": "c", "tags": {"kind": "x"}}]))
    assert task.example(0, "all") == Example("p", "c", {})


def test_conversations_become_plain_text(tmp_path):
    messages = [("system", ""), ("user", "2+2?"), ("assistant", "4"), ("user", "3+3?"), ("assistant", "6"), ("user", "thanks")]
    row = {"messages": [{"role": role, "content": content} for role, content in messages]}
    task = load_data(jsonl(tmp_path, [row]))
    assert task.example(0, "all") == Example("system: \nuser: 2+2?\nassistant: 4\nuser: 3+3?\nassistant:\n", "6")


def test_csv_gives_the_same_rows(tmp_path):
    rows = ["It is 0.,say 0,x", '"two\nlines","a, b ""c""",', "", "Grüße,Ünï,x"]
    task = load_data(write(tmp_path, "data.CSV", "completion,prompt,note", *rows))
    assert all_of(task) == [Example("say 0", "It is 0."), Example('a, b "c"', "two\nlines"), Example("Ünï", "Grüße")]


def test_csv_may_hold_messages(tmp_path):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    cell = json.dumps(messages).replace('"', '""')
    task = load_data(write(tmp_path, "chat.csv", "messages", f'"{cell}"'))
    assert task.example(0, "all") == Example("user: hi\nassistant:\n", "hello")
    assert "`messages` in" in fault(write(tmp_path, "bad.csv", "messages", "hello"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("bom.jsonl", '{"prompt": "p", "completion": "c"}\r\n\r\n'), ("bom.csv", "prompt,completion\r\np,c\r\n")],
)
def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert all_of(load_data(path)) == [Example("p", "c")]


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path):
    rows = [{"prompt": "a\u2028b", "completion": "c\u0085d"}]
    assert all_of(load_data(jsonl(tmp_path, rows))) == [Example("a\u2028b", "c\u0085d")]


def test_a_missing_file_gets_the_nearest_name(tmp_path):
    there, asked = jsonl(tmp_path, ROWS, "invoices.jsonl"), tmp_path / "invoice.jsonl"
    assert f"no file {asked}. Did you mean `{there}`?" in fault(asked)
    assert f"There is no folder {tmp_path / 'nowhere'} either" in fault(tmp_path / "nowhere" / "x.jsonl")
    assert "Did you mean" not in fault(tmp_path / "quite-different.csv")


def test_what_is_not_a_data_file(tmp_path):
    assert "is a folder" in fault(tmp_path)
    for name in ("data.parquet", "data.json", "data"):
        message = fault(write(tmp_path, name, "x"))
        assert name in message and ".jsonl and .csv" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_an_empty_file(tmp_path, name):
    for lines in ([], ["", ""], ["prompt,completion"] if name == "a.csv" else ["  "]):
        assert f"{name} has no rows" in fault(write(tmp_path, name, *lines))


@pytest.mark.parametrize("name", ["latin.jsonl", "latin.csv"])
def test_not_utf8(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"prompt,completion\n" * (name == "latin.csv") + b'{"prompt": "caf\xe9", "completion": "c"}\n')
    assert f"line {2 if name == 'latin.csv' else 1} is not UTF-8 (byte 0xe9)" in fault(path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = jsonl(tmp_path, ROWS)
    real = open

    def refuse(file, *args, **kwargs):
        if file == path:
            raise PermissionError(13, "Permission denied")
        return real(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    assert f"{path} cannot be read: Permission denied" in fault(path)


GOOD = '{"prompt": "p", "completion": "c"}'
USER = '{"role": "user", "content": "hi"}'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "p", ', "line 3 is not JSON: Expecting property name enclosed in double quotes at column 16"),
        ("prompt: p", "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON that can be read"),
        ('["p", "c"]', "line 3 is a list, not an object"),
        ("7", "line 3 is a number, not an object"),
        ('{"prompt": "p", "answer": "c"}', "line 3 has no column `completion`; found: `prompt`, `answer`"),
        ("{}", "line 3 has no column `prompt` and no `completion`; found: none"),
        ('{"prompt": "p", "completion": 3}', "`completion` in .* line 3 is a number, not text"),
        ('{"prompt": null, "completion": "c"}', "`prompt` in .* line 3 is null, not text"),
        ('{"prompt": ["p"], "completion": "c"}', "`prompt` in .* line 3 is a list, not text"),
        ('{"prompt": "p", "completion": true}', "`completion` in .* line 3 is true or false, not text"),
        ('{"prompt": "p", "completion": " "}', "`completion` in .* line 3 is empty"),
        ('{"prompt": "", "completion": "c"}', "`prompt` in .* line 3 is empty"),
        ('{"prompt": "\\ud800", "completion": "c"}', "`prompt` in .* line 3 holds half a character"),
        ('{"messages": {"role": "user"}}', "`messages` in .* line 3 is not a list of objects"),
        ('{"messages": ["hi"]}', "`messages` in .* line 3 is not a list of objects"),
        ('{"messages": []}', "`messages` in .* line 3 has no assistant message"),
        ('{"messages": [{"role": "assistant", "content": "hi"}]}', "`messages` in .* line 3 has no assistant message"),
        (f'{{"messages": [{USER}]}}', "`messages` in .* line 3 has no assistant message"),
        ('{"messages": [{"role": "user"}]}', "`content` in .* line 3 is null, not text"),
        (f'{{"messages": [{USER}, {{"role": "assistant", "content": ""}}]}}', "`content` in .* line 3 is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, expected):
    with pytest.raises(BadData, match=expected) as caught:
        load_data(write(tmp_path, "data.jsonl", GOOD, "", line, GOOD))
    assert caught.value.hint and str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["question,answer", "p,c"], "line 1 has no column `prompt` and no `completion`; found: `question`, `answer`"),
        (["say 0,It is 0."], "line 1 has no column `prompt` and no `completion`; found: `say 0`, `It is 0.`"),
        (["prompt;completion", "p;c"], "found: `prompt;completion`"),
        (["prompt,completion", "p,c", "a, b,c"], "line 3 does not fit the columns: 3 values against 2 names"),
        (["prompt,completion", '"two', 'lines",c', "alone"], "line 4 does not fit the columns: 1 values against 2 names"),
        (["", "question,answer"], "line 2 has no column"),
        (["", "prompt,completion", "p,"], "`completion` in .* line 3 is empty"),
        (["prompt,completion", "p,"], "`completion` in .* line 2 is empty"),
        (["prompt,completion", "p,c", 'p,"never closed'], "line 3 is not CSV"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, lines, expected):
    with pytest.raises(BadData, match=expected) as caught:
        load_data(write(tmp_path, "data.csv", *lines))
    assert caught.value.hint


def test_a_small_file_says_what_it_lacks(tmp_path):
    task = load_data(jsonl(tmp_path, ROWS[:1]))
    short = next(split for split in ("valid", "test") if not task.size(split))
    with pytest.raises(BadData, match=f"the {short} split of `data` has 0 examples, and 5 were asked for"):
        task.take(5, short)
    with pytest.raises(BadData, match="no example 1 in the all split of `data`, which has 1"):
        task.example(1, "all")
    with pytest.raises(NotFound, match="Did you mean `train`"):
        task.size("trian")


def test_a_long_list_of_columns_is_cut(tmp_path):
    message = fault(jsonl(tmp_path, [{f"column {k} {'x' * 100}": 1 for k in range(500)}]))
    assert len(message) < 700
