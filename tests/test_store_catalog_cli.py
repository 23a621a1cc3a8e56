import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from store.catalog.read import read_split
from store.cli import main
from store.workspace import Workspace

CSV = 'sample_id,catalog_content,image_link,price\n1,"Item Name: Tea, 2 Pack\nValue: 2\nUnit: Count\n",,5\n2,Mug,,0\n'


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(CSV)
    return str(path)


def run(tmp_path, *arguments):
    command = ["catalog", "ingest", "-w", str(tmp_path / "w"), "--max-rejected", "1", *arguments]
    return CliRunner().invoke(main, command)


def test_ingest_prints_rows_rejections_by_reason_and_what_it_wrote(tmp_path, train):
    result = run(tmp_path, "--train", train)
    assert result.exit_code == 0, result.output
    assert f"train: 1 rows of {train}, 0 with image, 1 without (new)\n" in result.output
    assert "rejected: 1 row, price is zero" in result.output
    assert "rejected.parquet" in result.output
    assert "shelfprice.toml" in result.output


def test_links_that_are_not_fetched_yet_are_counted_with_the_command_that_fetches_them(tmp_path):
    path = tmp_path / "train.csv"
    links = ["https://x.org/a.jpg", "", "no link", "['https://x.org/b.jpg', 'https://x.org/a.jpg']"]
    rows = [f'{at},tea,"{link}",5\n' for at, link in enumerate(links)]
    path.write_text("sample_id,catalog_content,image_link,price\n" + "".join(rows))
    said = run(tmp_path, "--train", str(path)).output
    assert "2 rows have links to images that are not here yet: 'shelfprice catalog images' fetches" in said
    assert "next: shelfprice catalog images -w " in said
    path.write_text("sample_id,catalog_content,image_link,price\n1,tea,,5\n")
    said = run(tmp_path, "--train", str(path)).output
    assert "links to images" not in said
    assert "next: shelfprice embed run -w " in said


def test_ingesting_again_says_that_nothing_changed(tmp_path, train):
    run(tmp_path, "--train", train)
    assert "nothing changed: the catalogue was not rewritten" in run(tmp_path, "--train", train).output


def test_the_result_is_one_json_object_where_asked_for(tmp_path, train):
    result = run(tmp_path, "--train", train, "--json")
    value = json.loads(result.stdout)
    assert value["splits"]["train"]["rejected"] == {"price is zero": 1}
    assert value["is_unchanged"] is False


def test_a_wrong_file_is_one_line_and_exit_code_1(tmp_path, train):
    result = run(tmp_path, "--train", train, "--price-column", "prize")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"Error: {train} has no column 'prize', its columns are 'sample_id', 'catalog_content', 'image_link', 'price': "
        "name the right one with '--price-column price'"
    ]
    assert not (tmp_path / "w").exists()


def test_columns_of_the_configuration_are_used_where_no_option_says_otherwise(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("asin,title,usd\nA1,Tea,5\n")
    columns = ["--id-column", "asin", "--text-column", "title", "--price-column", "usd"]
    assert run(tmp_path, "--train", str(path), *columns).exit_code == 0
    assert "nothing changed" in run(tmp_path, "--train", str(path)).output


def test_ingest_imports_nothing_heavy(tmp_path, train):
    code = (
        "import sys\n"
        "from store.cli import main\n"
        f"main(['catalog', 'ingest', '--max-rejected', '1', '--train', {train!r}, '-w', {str(tmp_path / 'w')!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'xgboost', 'lightgbm', 'faiss', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_two_runs_at_once_both_end_well(tmp_path, train):
    command = [
        sys.executable,
        "-m",
        "store.cli",
        "catalog",
        "ingest",
        "--max-rejected",
        "1",
        "--train",
        train,
        "-w",
        str(tmp_path / "w"),
    ]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted("nothing changed" in text for text in told) == [False, True]


def test_text_columns_are_joined_in_the_order_given_and_kept_for_later_runs(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('asin,title,details,price\nA1,Tea,green,"$1,200"\nA2,Mug,blue,$5\n')
    options = ["--id-column", "asin", "--text-column", "details", "--text-column", "title"]
    result = run(tmp_path, "--train", str(path), *options)
    assert result.exit_code == 0, result.output
    assert "note: prices of 'price' are read as 1,299.50" in result.output
    assert "nothing changed" in run(tmp_path, "--train", str(path)).output
    table = read_split(Workspace(tmp_path / "w"), "train")
    assert table["text"].to_pylist() == ["green\ntitle: Tea", "blue\ntitle: Mug"]
    assert "changed" in run(tmp_path, "--train", str(path), "--text-column", "title").output
    assert read_split(Workspace(tmp_path / "w"), "train")["text"].to_pylist() == ["Tea", "Mug"]


def test_options_for_prices_ids_and_rejected_rows_reach_the_catalogue(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("catalog_content,price\n" + "a,1.250-1.750\n" * 8 + "b,ask\nc,2.500\n")
    test.write_text("number,catalog_content\n7,x\n")
    options = ["--id-column", "row-number", "--test-id-column", "number", "--decimal", "comma"]
    result = run(tmp_path, "--train", str(train), "--test", str(test), *options, "--price-range", "mid")
    assert result.exit_code == 0, result.output
    workspace = Workspace(tmp_path / "w")
    assert read_split(workspace, "train")["price"].to_pylist() == [1500.0] * 8 + [2500.0]
    assert read_split(workspace, "train")["sample_id"].to_pylist() == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert read_split(workspace, "test")["sample_id"].to_pylist() == [7]
    refused = run(tmp_path, "--train", str(train), "--max-rejected", "0.05")
    assert refused.exit_code == 1
    assert "1 of 10 rows" in refused.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["catalog", "folds", "--seed", "-1"], "-1 is not in the range 0<=x<=4294967295"),
        (["catalog", "demo", "--to", "demo", "--seed", "-1"], "-1 is not in the range 0<=x<=4294967295"),
        (["catalog", "ingest", "--max-rejected", "nan"], "nan is not in the range 0.0<=x<=1.0"),
        (["embed", "run", "--max-failures", "nan"], "nan is not in the range 0.0<=x<=1.0"),
        (["embed", "run", "--max-coverage-gap", "nan"], "nan is not in the range 0.0<=x<=1.0"),
    ],
)
def test_a_number_that_an_option_can_not_take_is_refused(command, told):
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert told in result.output
