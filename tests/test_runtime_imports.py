import subprocess
import sys

HEAVY = ("torch", "timm", "rasterio", "cv2", "onnxruntime", "hnswlib", "pyproj", "numpy")


def loaded_after(code: str) -> set[str]:
    """Return which heavy modules a fresh interpreter holds after running `code`."""
    probe = f"{code}\nimport sys\nprint(*(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom s4g.runtime.cli import main\nsys.argv = ['s4g-run', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert loaded_after(code) == set()


def test_a_drone_loads_no_training_and_no_raster_library() -> None:
    modules = "cli exif fix frames intrinsics jpeg locate normalise pipeline plot score tables"
    code = "\n".join(f"import s4g.runtime.{m}" for m in [*modules.split(), "telemetry", "video"])
    assert not loaded_after(code) & {"torch", "timm", "rasterio"}
