"""The tables of docs/performance.md say what the results of the benchmarks say."""

import argparse
import importlib
import json
from pathlib import Path

import pytest
from harness import Figure, Measured, Spread, Timings, run_benchmark
from performance_tables import MISSING, OTHERS, PARTS, performance_page

REGION = "<!-- benchmark: {} -->\nold\n<!-- end -->\n"
PAGE = "# Title\n\n" + "prose\n".join(REGION.format(name) for name in ("summary", *OTHERS, *PARTS))


def measured(folder: Path) -> None:
    """Write results of a benchmark that never ran."""

    def measure(_: argparse.Namespace) -> Measured:
        return Measured(
            figures=[
                Figure(what="against a peer", value=Spread(3.25, 3.0, 3.5), at_least=4.0),
                Figure(what="memory", value=0.4, unit="", at_most=0.5, note="4 of 10 MiB"),
                Figure(what="an old peer", value=None, note="it is not installed"),
            ],
            timings={"ours": Timings([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])},
            settings={"mean_wordpieces": 147.2},
        )

    out = folder / "embedding.json"
    assert run_benchmark("embedding", "Made up.", measure, arguments=["--out", str(out)]) == 0


def test_a_table_has_value_spread_target_and_outcome(tmp_path: Path) -> None:
    measured(tmp_path)
    page = performance_page(PAGE, tmp_path)
    row = "against a peer | 3.25x [3, 3.5] | at least 4 | **missed** |"
    assert page.count(f"\n| {row}") == 1
    assert page.count(f"| embedding a corpus | {row}") == 1
    assert page.count("memory (4 of 10 MiB) | 0.4 | at most 0.5 | met |") == 2
    assert "| an old peer (it is not installed) | not measured |  |  |" in page
    assert "| ours | 2 [1.5, 2.5] | 5 [4.5, 5.5] |" in page
    assert "mean wordpieces 147.2" in page
    assert page.count("prose\n") == len(PARTS) + len(OTHERS)
    assert "old\n" not in page
    assert page.count(MISSING) == len(PARTS) - 1 + len(OTHERS)
    assert performance_page(page, tmp_path) == page


def test_another_processor_has_a_summary_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "avx2").mkdir()
    measured(tmp_path / "avx2")
    page = performance_page(PAGE, tmp_path)
    own = page.partition("<!-- benchmark: summary_avx2 -->")[2].partition("<!-- end -->")[0]
    assert (
        "| embedding a corpus | against a peer | 3.25x [3, 3.5] | at least 4 | **missed** |" in own
    )
    assert "Measured on " in own
    assert page.count("3.25x") == 1


def test_another_result_changes_the_page(tmp_path: Path) -> None:
    measured(tmp_path)
    page = performance_page(PAGE, tmp_path)
    path = tmp_path / "embedding.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["figures"][0]["value"] = 5.0
    path.write_text(json.dumps(content), encoding="utf-8")
    assert performance_page(page, tmp_path) != page


def test_a_page_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="growth"):
        performance_page(PAGE.replace("benchmark: growth", "benchmark: grown"), tmp_path)


def test_the_page_has_every_benchmark_that_make_bench_runs() -> None:
    assert tuple(PARTS) == importlib.import_module("all").PARTS
