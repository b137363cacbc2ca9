"""Predictions by adaptive least squares: each pixel's from what is decoded already, to the left and above.

For channel c of the pixel at (x, y) the target is its difference from the pixel to the left, and the regressors are differences too, so that a
level added to the whole picture changes nothing: nine further neighbours in c; of the channels that are coded before, the pixel itself and three
neighbours; of those coded after, two neighbours. The statistics (sums of products) fade along the row by LEFT, from row to row by ABOVE, and come
from both sides of the rows above. Busy places weigh less. Raster order, float64, one strict order of operations.

numba compiles this where it is installed; without it the same source runs, some hundred times slower.
"""

import numpy as np

try:
    from numba import njit
except ImportError:

    def njit(**options):
        return lambda function: function


LEFT, ABOVE = 0.9, 0.8  # how much of the statistics is left a pixel, a row further; 0.95 and 0.9, 0.85 and 0.7 are worse
EVERY = 4  # pixels for which one solution serves; 1 takes twice the time for 0.01 bits a subpixel
RIDGE = 1e-3  # of the mean squared regressor, added to each
MARGIN = 4  # pixels above, to the left and to the right of a padded picture
ORDER = np.array([1, 0, 2])  # G, R, B
OWN = np.array([(-1, 0), (0, -1), (1, -1), (-1, -1), (-2, 0), (0, -2), (1, -2), (-1, -2), (2, -1), (-2, -1)])  # (dx, dy), nearest first


def predict(pixels: np.ndarray) -> np.ndarray:
    """pixels: H×W×3 uint8 -> predictions H×W×3 float64, within 0 to 255; channel ORDER[k] of a pixel has seen ORDER[:k] of it."""
    return _predict(padded(pixels), *pixels.shape[:2], ORDER, OWN)


def padded(pixels: np.ndarray) -> np.ndarray:
    """With what surrounds it: 128 above, the first pixel of the row above to the left, a row's own last pixel to the right; float64."""
    height, width, _ = pixels.shape
    out = np.full((height + MARGIN, width + 2 * MARGIN, 3), 128.0)
    out[MARGIN:, MARGIN : width + MARGIN] = pixels
    out[MARGIN:, width + MARGIN :] = pixels[:, -1:]
    out[MARGIN + 1 :, :MARGIN] = pixels[:-1, :1]
    return out


@njit(cache=True)
def _regressors(image, c, y, x, order, own, out):
    """Of the pixel at (x, y) of a padded picture, into `out`; returns how many."""
    count = 0
    for i in range(1, 10):
        out[count] = image[y + own[i, 1], x + own[i, 0], c] - image[y, x - 1, c]
        count += 1
    known = True
    for d in order:
        if d == c:
            known = False
            continue
        west = image[y, x - 1, d]
        if known:
            out[count] = image[y, x, d] - west
            count += 1
        for i in range(1, 4 if known else 3):
            out[count] = image[y + own[i, 1], x + own[i, 0], d] - west
            count += 1
    return count


@njit(cache=True)
def _solve(matrix, right, solution, factor, ridge):
    """Cholesky's method: (matrix + ridge) solution = right. factor: room for it."""
    count = len(right)
    for i in range(count):
        for j in range(i + 1):
            factor[i, j] = matrix[i, j]
        factor[i, i] += ridge
    for j in range(count):
        pivot = np.sqrt(max(factor[j, j], 1e-9))
        factor[j, j] = pivot
        for i in range(j + 1, count):
            factor[i, j] /= pivot
        for k in range(j + 1, count):
            for i in range(k, count):
                factor[i, k] -= factor[i, j] * factor[k, j]
    for i in range(count):
        total = right[i]
        for k in range(i):
            total -= factor[i, k] * solution[k]
        solution[i] = total / factor[i, i]
    for i in range(count - 1, -1, -1):
        total = solution[i]
        for k in range(i + 1, count):
            total -= factor[k, i] * solution[k]
        solution[i] = total / factor[i, i]


@njit(cache=True)
def _predict(image, height, width, order, own):
    predictions = np.zeros((height, width, 3))
    for c in order:
        seen = np.zeros(32)
        count = _regressors(image, c, MARGIN, MARGIN, order, own, seen)
        size = count * (count + 1) // 2 + count  # the lower triangle, and the products with the target
        above, row = np.zeros((width, size)), np.zeros((width, size))
        left = np.zeros(size)
        matrix, factor = np.zeros((count, count)), np.zeros((count, count))
        right, solution = np.zeros(count), np.zeros(count)
        for y in range(height):
            left[:] = 0
            for x in range(width):
                _regressors(image, c, y + MARGIN, x + MARGIN, order, own, seen)
                west = image[y + MARGIN, x + MARGIN - 1, c]
                if x % EVERY == 0:
                    k = 0
                    trace = 0.0
                    for i in range(count):
                        for j in range(i + 1):
                            matrix[i, j] = left[k] + above[x, k]
                            k += 1
                        trace += matrix[i, i]
                    for i in range(count):
                        right[i] = left[k] + above[x, k]
                        k += 1
                    _solve(matrix, right, solution, factor, RIDGE * trace / count + 0.5)
                value = west
                for i in range(count):
                    value += solution[i] * seen[i]
                predictions[y, x, c] = min(max(value, 0.0), 255.0)
                target = image[y + MARGIN, x + MARGIN, c] - west
                activity = 4.0
                for i in range(9):
                    activity += abs(seen[i])
                weight = 100.0 / (activity * activity)
                k = 0
                for i in range(count):
                    for j in range(i + 1):
                        row[x, k] = seen[i] * weight * seen[j]
                        k += 1
                for i in range(count):
                    row[x, k] = seen[i] * weight * target
                    k += 1
                for i in range(size):
                    left[i] = LEFT * left[i] + row[x, i]
            left[:] = 0
            for x in range(width):
                for i in range(size):
                    left[i] = LEFT * left[i] + row[x, i]
                    above[x, i] = ABOVE * above[x, i] + left[i]
            left[:] = 0
            for x in range(width - 1, -1, -1):
                for i in range(size):
                    above[x, i] += left[i]
                    left[i] = LEFT * (left[i] + row[x, i])
    return predictions
