"""Lists the operators without multiply-adds worth counting; an operator in none of these lists may be heavy.

The names are those of `aten::` operators, and stand for their in-place forms (`relu_`) too.
"""

from __future__ import annotations

# Operators that move, select, create or describe data, without arithmetic to report.
_MOVES = """
    Int Float Bool ScalarImplicit IntImplicit FloatImplicit __contains__ __getitem__ __is__ __isnot__ len size dim item
    _local_scalar_dense alias arange as_strided as_tensor tensor atleast_1d atleast_2d atleast_3d bernoulli
    broadcast_tensors broadcast_to cat channel_shuffle chunk clone col2im complex concat concatenate conj resolve_conj
    constant_pad_nd contiguous copy cpu cuda detach detach_copy diagonal dropout alpha_dropout feature_dropout dsplit
    dstack embedding empty empty_like expand expand_as eye fill flatten flip fliplr flipud full full_like gather hsplit
    hstack im2col imag index index_copy index_fill index_put index_select is_floating_point lift_fresh linspace
    masked_fill masked_scatter masked_select meshgrid moveaxis movedim narrow native_channel_shuffle native_dropout
    new_empty new_full new_ones new_zeros nonzero numpy_T matrix_H mH mT one_hot ones ones_like pad permute
    pixel_shuffle pixel_unshuffle polar fft_fftshift fft_ifftshift _pack_padded_sequence _pad_packed_sequence rand
    rand_like randn randn_like randint randperm real reflection_pad1d reflection_pad2d reflection_pad3d repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d requires_grad reshape reshape_as resize roll
    rot90 scalar_tensor scatter select select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes
    swapdims t take take_along_dim tensor_split tile to transpose tril tril_indices triu triu_indices type_as unbind
    unflatten unfold unsafe_chunk unsafe_split unsqueeze view view_as view_as_complex view_as_real vsplit vstack where
    zero zeros zeros_like
"""

MOVES = frozenset(_MOVES.split())

# Operators with a few operations per element or a lookup, which are reported as uncounted.
_CHEAP = """
    abs acos add add_relu addcdiv all amax amin aminmax angle any argmax argmin argsort asin atan atan2
    _embedding_bag grid_sampler bincount bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max
    clamp_min clip copysign cos cosh cosine_similarity cross linalg_cross count_nonzero cummax cummin cumprod cumsum
    diff div divide elu embedding_bag embedding_renorm eq erf erfc exp exp2 expm1
    float_power floor floor_divide fmod frac ge gelu glu
    greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh histc isfinite isinf isnan kthvalue ldexp le
    leaky_relu lerp less less_equal log log10 log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not
    logical_or logical_xor logit logsumexp lt max maximum mean median min minimum mish mul multiply multinomial
    nan_to_num nanmean nansum ne neg negative norm frobenius_norm linalg_norm linalg_vector_norm not_equal outer ger
    positive pow prelu prod rad2deg reciprocal relu relu6 remainder round rrelu rsqrt rsub scatter_add scatter_reduce
    index_add searchsorted bucketize selu sgn sigmoid sign silu sin sinc sinh softmax softmin softplus softshrink
    softsign sort special_erf special_expit special_logit sqrt square std std_mean sub subtract sum tan tanh tanhshrink
    threshold topk true_divide trunc unique_consecutive unique_dim _unique2 var var_mean xlogy _softmax _log_softmax
    _weight_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d max_pool1d max_pool1d_with_indices
    max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d __and__ __or__
    __xor__ __lshift__ __rshift__
"""

CHEAP = frozenset(_CHEAP.split())

# Names that operators have only where a model runs, not in its trace.
_MOVES_WHEN_RUN = """
    _assert_async _assert_scalar _conj _conj_copy _indices _neg_view _reshape_alias _reshape_copy _to_copy _unsafe_view
    _values empty_permuted empty_strided exponential geometric is_same_size lift native_channel_shuffle
    new_empty_strided normal random set split_copy unbind_copy uniform unsafe_split_with_sizes view_copy
"""

MOVES_WHEN_RUN = frozenset(_MOVES_WHEN_RUN.split())

_CHEAP_WHEN_RUN = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _safe_softmax
    _embedding_bag_forward_only _prelu_kernel _thnn_fused_gru_cell
    _thnn_fused_lstm_cell _unique _unique2 _weight_norm_interface grid_sampler_2d grid_sampler_3d
    _grid_sampler_2d_cpu_fallback cudnn_grid_sampler log_sigmoid_forward max_unpool2d max_unpool3d rrelu_with_noise
    scatter_reduce segment_reduce var_mean fractional_max_pool2d fractional_max_pool3d
"""

CHEAP_WHEN_RUN = frozenset(_CHEAP_WHEN_RUN.split())

# Operators of other libraries, with their namespace: lookups, and a few operations per element.
CHEAP_ELSEWHERE = frozenset(
    f"torchvision::{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
)
