import pytest
import torch

from ldm.metrics.color import ciede2000, mean_color, to_lab

# Test data of Sharma, Wu and Dalal (2005) that covers every branch of the formula.
PAIRS = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((50.0, -0.001, 2.49), (50.0, 0.0009, -2.49), 4.8045),
    ((50.0, -0.001, 2.49), (50.0, 0.0011, -2.49), 4.7461),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_ciede2000_has_the_published_values_and_is_symmetric(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    one, other = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    assert float(ciede2000(one, other)) == pytest.approx(expected, abs=5e-5)
    assert float(ciede2000(other, one)) == pytest.approx(expected, abs=5e-5)


def test_lab_of_white_black_and_the_primaries() -> None:
    rgb = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    expected = [
        [100, 0, 0],
        [0, 0, 0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
    ]
    torch.testing.assert_close(to_lab(rgb), torch.tensor(expected).double(), atol=0.02, rtol=0)


def test_mean_color_inside_a_mask() -> None:
    image = torch.full((3, 4, 4), -1.0)
    image[:, :2] = 1.0
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    torch.testing.assert_close(
        mean_color(image, mask), torch.tensor([100.0, 0, 0]).double(), atol=0.01, rtol=0
    )
    assert float(mean_color(image, ~mask)[0]) == pytest.approx(0, abs=0.01)
