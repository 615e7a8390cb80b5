"""The input projection of a policy, compiled: a linear map, or `mixture_of_experts.FilmProjection`.

Where it lies in the flat array of weights is told by `at`: of a linear map, the index of its first weight; of a
FiLM projection, those of the cells' embeddings, the map to gamma and beta, the map to features and the output, then the
numbers C and F. Axis letters as in `mixture_of_experts`.
"""

import numpy as np

from mop.envs.geometry import CATEGORIES, VIEW_SIZE
from mop.fast.compile_cache import kernel
from mop.fast.product import OPTIONS, add_product, add_transposed_product, linear, linear_backward, transposed

_kernel = kernel(**OPTIONS)
_CELLS = VIEW_SIZE * VIEW_SIZE
_TYPES, _COLORS, _STATES = CATEGORIES
_KINDS = _TYPES * _COLORS * _STATES


@_kernel
def gather_others(num_categorical, obs, lang):
    """(N, I - num_categorical + G): what of obs (N, I) is no category, then lang (N, G)."""
    num_others = obs.shape[1] - num_categorical
    others = np.empty((len(obs), num_others + lang.shape[1]), obs.dtype)
    for n in range(len(obs)):
        for j in range(num_others):
            others[n, j] = obs[n, num_categorical + j]
        for j in range(lang.shape[1]):
            others[n, num_others + j] = lang[n, j]
    return others


@_kernel
def _project_linear(weights, at, edges, obs, lang, x):
    """x (N, D) becomes bias + the encoded obs (N, I) and lang (N, G) @ weight; edges: `obs_edges`.

    At `at` lie the bias (D,), then the weight (K + G, D).
    """
    num_categorical, num_columns, width, zero = len(edges) - 1, edges[-1], x.shape[1], np.int64(0)
    others, start = gather_others(num_categorical, obs, lang), at + width
    bias, table = weights[at:], weights[start:]
    for n in range(len(obs)):
        y = x[n]
        for j in range(width):
            y[j] = bias[j]
        for k in range(0, num_categorical, 3):  # images have three channels; y is loaded and stored less often
            row_0 = table[(edges[k] + int(obs[n, k])) * width :]
            row_1 = table[(edges[k + 1] + int(obs[n, k + 1])) * width :]
            row_2 = table[(edges[k + 2] + int(obs[n, k + 2])) * width :]
            for j in range(width):
                y[j] = ((y[j] + row_0[j]) + row_1[j]) + row_2[j]
    start += num_columns * width
    block = weights[start : start + others.shape[1] * width].reshape(others.shape[1], width)
    add_product(others, zero, block, zero, width, x, zero)


@_kernel
def _find_kinds(obs):
    """The kinds of cells that each observation (N, I) shows, once each: (P,); and which of them each cell is: (N, 49).

    P is about a fifth of all cells. A kind is a type, a colour and a state.
    """
    place_of, places = np.full(_TYPES * _COLORS * _STATES, -1), np.empty((len(obs), _CELLS), np.int64)
    kinds, first, count = np.empty(len(obs) * _CELLS, np.int64), 0, 0
    for n in range(len(obs)):
        for cell in range(_CELLS):
            color_and_state = int(obs[n, _CELLS + cell]) + _COLORS * int(obs[n, 2 * _CELLS + cell])
            kind = int(obs[n, cell]) + _TYPES * color_and_state
            if place_of[kind] < first:
                place_of[kind], kinds[count] = count, kind
                count += 1
            places[n, cell] = place_of[kind]
        first = count
    return kinds[:count].copy(), places


@_kernel
def _rows_of_kind(kind):
    """Rows of the cells' embeddings: type, colour, state."""
    return kind % _TYPES, _TYPES + kind // _TYPES % _COLORS, _TYPES + _COLORS + kind // (_TYPES * _COLORS)


@_kernel
def _matrix(weights, at, num_rows, num_columns):
    """A matrix of the flat array; of a linear map, its bias and weight."""
    return weights[at : at + num_rows * num_columns].reshape(num_rows, num_columns)


@_kernel
def _film_features(weights, at, kinds, places, lang):
    """gamma and beta (N, 2C), relu((1 + gamma) * embedding + beta) (P, C), and the features (P, F)."""
    num, num_features, zero, none = at[4], at[5], np.int64(0), weights.dtype.type(0)
    cells = _matrix(weights, at[0], _TYPES + _COLORS + _STATES, num)
    film = np.empty((len(lang), 2 * num), weights.dtype)
    linear(weights, at[1], lang, zero, lang.shape[1], film, zero, 2 * num)
    modulated, last = np.empty((len(kinds), num), weights.dtype), zero
    for n in range(len(lang)):
        gamma, beta, first, last = film[n, :num], film[n, num:], last, max(places[n]) + 1
        for p in range(first, last):
            of_type, of_color, of_state = _rows_of_kind(kinds[p])
            row, type_, color, state = modulated[p], cells[of_type], cells[of_color], cells[of_state]
            for j in range(num):
                embedding = type_[j] + color[j] + state[j]
                value = embedding + gamma[j] * embedding + beta[j]
                row[j] = none if value < none else value  # written so that NaN stays NaN
    features = np.empty((len(kinds), num_features), weights.dtype)
    linear(weights, at[2], modulated, zero, num, features, zero, num_features)
    for p in range(len(features)):
        row = features[p]
        for f in range(num_features):
            row[f] = none if row[f] < none else row[f]
    return film, modulated, features


@_kernel
def _gather_inputs(places, features, others):
    """What the output of a FiLM projection maps, (N, 49F + I - 147 + G)."""
    num_features = features.shape[1]
    num_cells = _CELLS * num_features
    inputs = np.empty((len(places), num_cells + others.shape[1]), features.dtype)
    for n in range(len(places)):
        for cell in range(_CELLS):
            own, to = features[places[n, cell]], inputs[n, cell * num_features :]
            for f in range(num_features):
                to[f] = own[f]
        last, other = inputs[n, num_cells:], others[n]
        for j in range(len(other)):
            last[j] = other[j]
    return inputs


@_kernel
def project_input(weights, at, edges, obs, lang, x):
    """x (N, D) becomes the input projection of obs (N, I) and lang (N, G); edges: `obs_edges`.

    Returns what `input_backward` needs of a FiLM projection; all empty of a linear one.
    """
    zero = np.int64(0)
    if len(at) == 1:
        _project_linear(weights, at[0], edges, obs, lang, x)
        none, index = np.empty((0, 0), weights.dtype), np.empty((0, 0), np.int64)
        return np.empty(0, np.int64), index, none, none, none, none
    kinds, places = _find_kinds(obs)
    film, modulated, features = _film_features(weights, at, kinds, places, lang)
    inputs = _gather_inputs(places, features, gather_others(len(edges) - 1, obs, lang))
    linear(weights, at[3], inputs, zero, inputs.shape[1], x, zero, x.shape[1])
    return kinds, places, film, modulated, features, inputs


@_kernel
def _linear_input_backward(matrix, edges, obs, lang, grad_x, grad_matrix, grad_others):
    """The gradient of `_project_linear`, added to grad_matrix and, by what is no category, grad_others.

    grad_matrix (1 + K + G, D), grad_others (N, I - categories + G).
    """
    num_categorical, num_columns, zero = len(edges) - 1, edges[-1], np.int64(0)
    for n in range(len(obs)):
        for k in range(num_categorical):
            row, g = grad_matrix[1 + edges[k] + int(obs[n, k])], grad_x[n]
            for j in range(len(g)):
                row[j] += g[j]
    bias, others = grad_matrix[0], gather_others(num_categorical, obs, lang)
    for n in range(len(obs)):
        row = grad_x[n]
        for j in range(len(bias)):
            bias[j] += row[j]
    dense, grad_dense = matrix[1 + num_columns :], grad_matrix[1 + num_columns :]
    add_transposed_product(others, zero, grad_x, zero, grad_x.shape[1], grad_dense, zero)
    add_product(grad_x, zero, transposed(dense, zero, dense.shape[1]), zero, len(dense), grad_others, zero)


@_kernel
def _map_backward(weights, grad_weights, at, x, grad_out, grad_x):
    """The gradient of the linear map that lies at `at`, added to grad_weights and grad_x."""
    num_rows, width = 1 + x.shape[1], grad_out.shape[1]
    to_matrix = _matrix(grad_weights, at, num_rows, width)
    linear_backward(_matrix(weights, at, num_rows, width), x, grad_out, to_matrix, grad_x)


@_kernel
def _film_backward(weights, at, tape, grad_x, grad_weights):
    """The gradient of a FiLM projection, added to grad_weights; returns those by its inputs, and by gamma and beta."""
    kinds, places, film, modulated, features, inputs = tape
    num, num_features, zero, none = at[4], at[5], np.int64(0), weights.dtype.type(0)
    grad_inputs, grad_features, slopes = np.zeros_like(inputs), np.zeros_like(features), np.zeros_like(modulated)
    _map_backward(weights, grad_weights, at[3], inputs, grad_x, grad_inputs)
    for n in range(len(places)):
        for cell in range(_CELLS):
            to, by = grad_features[places[n, cell]], grad_inputs[n, cell * num_features :]
            for f in range(num_features):
                to[f] += by[f]
    for p in range(len(features)):
        row, feature = grad_features[p], features[p]
        for f in range(num_features):
            row[f] = row[f] if feature[f] > none else none
    _map_backward(weights, grad_weights, at[2], modulated, grad_features, slopes)
    num_embeddings, last = _TYPES + _COLORS + _STATES, zero
    cells, grad_cells = _matrix(weights, at[0], num_embeddings, num), _matrix(grad_weights, at[0], num_embeddings, num)
    grad_film = np.zeros_like(film)
    for n in range(len(places)):
        gamma, to_gamma, to_beta = film[n], grad_film[n], grad_film[n, num:]
        first, last = last, max(places[n]) + 1
        for p in range(first, last):
            of_type, of_color, of_state = _rows_of_kind(kinds[p])
            type_, color, state = cells[of_type], cells[of_color], cells[of_state]
            to_type, to_color, to_state = grad_cells[of_type], grad_cells[of_color], grad_cells[of_state]
            slope, value = slopes[p], modulated[p]
            for j in range(num):
                slope[j] = slope[j] if value[j] > none else none
            for j in range(num):
                to_gamma[j] += slope[j] * (type_[j] + color[j] + state[j])
                to_beta[j] += slope[j]
            for j in range(num):
                slope[j] += gamma[j] * slope[j]
            for j in range(num):
                to_type[j] += slope[j]
                to_color[j] += slope[j]
                to_state[j] += slope[j]
    return grad_inputs, grad_film


@_kernel
def input_backward(weights, at, edges, obs, lang, tape, grad_x, grad_weights, grad_others):
    """The gradient of `project_input`, which returned `tape`: added to grad_weights, and by what is no category.

    The latter to grad_others (N, I - categories + G); the other arguments as there.
    """
    width, num_others, num_lang = grad_x.shape[1], grad_others.shape[1], lang.shape[1]
    if len(at) == 1:
        num_rows = 1 + edges[-1] + num_others
        matrix, to_matrix = _matrix(weights, at[0], num_rows, width), _matrix(grad_weights, at[0], num_rows, width)
        _linear_input_backward(matrix, edges, obs, lang, grad_x, to_matrix, grad_others)
    else:
        grad_inputs, grad_film = _film_backward(weights, at, tape, grad_x, grad_weights)
        grad_lang = np.zeros_like(lang)
        _map_backward(weights, grad_weights, at[1], lang, grad_film, grad_lang)
        first = grad_inputs.shape[1] - num_others
        for n in range(len(obs)):
            to, by = grad_others[n], grad_inputs[n, first:]
            for j in range(num_others):
                to[j] += by[j]
            to, by = grad_others[n, num_others - num_lang :], grad_lang[n]
            for j in range(num_lang):
                to[j] += by[j]
