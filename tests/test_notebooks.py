import ast
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    """Where the notebooks run, one after the other as people run them: a pool that one has made serves the next."""
    folder = tmp_path_factory.mktemp("notebooks")
    shutil.copytree(samples, folder / "photos")
    return folder


def executed(name, folder):
    """The text of the notebook after its cells ran in ``folder``, and how many pictures it shows."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_kernels_are_estimated_and_compared_with_the_truth(folder):
    text, pictures = executed("01_kernels", folder)
    assert pictures == 6
    psnr = {name: float(value) for name, value in re.findall(r"^(\w.+?) +PSNR +([\d.]+) dB", text, re.MULTILINE)}
    assert min(psnr["patch matching"], psnr["KernelGAN"]) > psnr["assuming bicubic"] + 3
    assert len(list((folder / "pools/kernels").glob("*.npz"))) == text.count(" / ") // 2 == 4  # rows of the table


@pytest.mark.slow
def test_made_lr_is_compared_with_the_photos(folder):
    text, pictures = executed("02_degradation", folder)
    assert pictures == 5
    auc = {name: float(value) for name, value in re.findall(r"^(\w+) +AUC ([\d.]+)$", text, re.MULTILINE)}
    assert list(auc) == ["bicubic", "noise", "kernel", "kernel_noise", "kernel_noise_jpeg", "camera", "bsrgan"]
    assert auc["camera"] < min(value for name, value in auc.items() if name not in ("camera", "bsrgan"))


@pytest.mark.slow
def test_checkpoints_become_a_table_pictures_and_a_report(folder):
    text, pictures = executed("03_results", folder)
    assert pictures == 2
    psnr = {name: float(value) for name, value in re.findall(r"│ (\w+) +│ +([\d.]+) │", text)}
    assert list(psnr) == ["bicubic", "zssr", "bicubic_pairs", "camera"]
    assert psnr["camera"] > max(psnr["bicubic"], psnr["bicubic_pairs"]) + 0.1
    assert all(f'data-method="{method}"' in (folder / "results/report.html").read_text("utf-8") for method in psnr)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_name_that_is_imported_is_there(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    code = "\n".join(line for cell in cells for line in cell.splitlines() if not line.startswith(("%", "!")))
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imports) > 5
    exec(compile(ast.Module(imports, []), path.name, "exec"), {})


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.outputs or cell.execution_count for cell in cells if cell.cell_type == "code")


def test_links_between_notebooks_lead_somewhere():
    for path in FOLDER.glob("*.ipynb"):
        texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        targets = re.findall(r"\]\((?!https?:)([^)]+)\)", "\n".join(texts))
        assert targets and all((FOLDER / target).is_file() for target in targets)
