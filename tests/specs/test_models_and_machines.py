"""ModelSpec to transformers and back, the catalogue, clusters, and specs on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.append(str(Path(__file__).parents[1] / "plan"))
from plan_shapes import models

from lablib.specs import MLA, SSM, Accelerator, Cluster, LabError, ModelSpec, MoE, catalog, write_atomic

EACH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EACH
@given(models())
def test_a_model_survives_the_way_to_transformers_and_back(model: ModelSpec) -> None:
    config = model.to_hf()
    assert ModelSpec.from_hf(config) == model
    assert ModelSpec.from_hf(config.to_dict()) == model
    assert ModelSpec.from_hf(json.loads(config.to_json_string(use_diff=False))) == model


@EACH
@given(models())
def test_transformers_is_told_nothing_that_it_does_not_know(model: ModelSpec) -> None:
    config = model.to_hf()
    known = set(type(config)().to_dict()) | {
        "head_dim"
    }  # Qwen3-MoE reads head_dim though its config does not declare it
    assert set(config.to_dict()) <= known


PLANNED_ONLY = {
    "falcon-7b", "falcon-40b", "falcon-180b", "bloom-176b", "bloomberggpt-50b", "gpt-neox-20b", "starcoderbase-15b",
    "palm-540b", "glm-130b", "phi-1.5", "stablelm-alpha-3b", "apertus-8b", "apertus-70b", "olmo-3-7b", "olmo-3-32b",
    "gpt-oss-120b", "gpt3_7b-mlm",
}  # fmt: skip
"""Models with parts that transformers' class of their family lacks."""


def planned_only(name: str) -> bool:
    return name in PLANNED_ONLY or name.startswith(("pythia-", "mpt-", "megatron24-"))


@pytest.mark.parametrize("name", sorted(filter(planned_only, catalog.models)))
def test_what_transformers_lacks_is_planned_and_not_built(name: str) -> None:
    with pytest.raises(LabError, match="can be planned, not built"):
        catalog.models[name].to_hf()


def test_what_transformers_would_pass_over_is_not_built() -> None:
    rwkv = catalog.models["rwkv-4-169m"]  # its matrices begin orthogonal
    with pytest.raises(LabError, match=r"rwkv has no init_std=0\.01"):
        rwkv.replace(init_std=0.01).to_hf()
    jamba = catalog.models["jamba-v0.1"]
    assert jamba.ssm
    twice = jamba.replace(ssm=jamba.ssm.replace(attention_layers=(4, 12, 12, 20, 28)))
    assert ModelSpec.from_hf(twice.to_hf()) == jamba


@pytest.mark.parametrize("name", sorted(name for name in catalog.models if not planned_only(name)))
def test_every_model_of_the_catalogue_survives_too(name: str, tmp_path: Path) -> None:
    model = catalog.models[name]
    model.to_hf().save_pretrained(tmp_path)
    assert ModelSpec.from_hf(tmp_path) == model == ModelSpec.from_hf(name)
    assert ModelSpec.from_hf(str(tmp_path / "config.json")) == model


@EACH
@given(models())
def test_specs_are_values(model: ModelSpec) -> None:
    again = ModelSpec.from_toml(model.to_toml())
    assert again == model and hash(again) == hash(model) and again.content_hash == model.content_hash
    assert model.replace(vocab=model.vocab + 1).content_hash != model.content_hash


BASE = {"layers": 2, "hidden": 64, "heads": 4, "ffn": 96, "vocab": 128}
EXPERTS = MoE(experts=4, top_k=2, expert_ffn=8)
SCAN = SSM(heads=64, head_dim=1, state=8, step_rank=4)
LATENT = MLA(kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8)
WRONG = [
    ({"heads": 3}, "hidden=64 is not a multiple of heads=3"),
    ({"kv_heads": 3}, "heads=4 must be a multiple of kv_heads=3"),
    ({"head_dim": 7}, "head_dim=7 must be even"),
    ({"layers": 0}, "layers"),
    ({"moe": EXPERTS}, "moe is set for family='llama'"),
    ({"family": "qwen3_moe"}, "moe is missing for family='qwen3_moe'"),
    ({"family": "rwkv"}, "heads=4: family='rwkv' mixes time channel by channel"),
    ({"family": "retnet"}, "transformers has no RetNet; its nearest kin there is family='rwkv'"),
    ({"family": "zamba2"}, "use family='bamba' or 'granitemoehybrid'"),
    ({"family": "jamba", "ssm": SSM(heads=4, head_dim=16, state=8)}, "has Mamba-1 layers; set head_dim=1"),
    ({"family": "bamba", "ssm": SSM(heads=64, head_dim=1, state=8, step_rank=4)}, "has Mamba-2 layers"),
    ({"family": "jamba", "ssm": SCAN, "moe": EXPERTS}, "jamba's ffn=96 is its moe.expert_ffn=8"),
    (
        {"family": "granitemoehybrid", "ssm": SSM(heads=4, head_dim=16, state=8), "moe": EXPERTS},
        "is the width of its shared experts",
    ),
    ({"family": "qwen3_moe", "moe": EXPERTS.replace(every=3)}, "no layer is left with experts"),
    ({"family": "mixtral", "ffn": 8, "moe": EXPERTS.replace(every=2)}, "use jamba or qwen3_moe"),
    ({"gated": False}, "gated=False: family='llama' always has True"),
    ({"family": "nemotron", "gated": True}, "gated=True: family='nemotron' always has False"),
    ({"positions": "alibi"}, "positions='alibi'"),
    ({"qk_norm": True}, "qk_norm=True"),
    ({"family": "qwen2", "attention_bias": False}, "always has biases"),
    ({"family": "mistral", "attention_bias": True}, "never has biases"),
    ({"mlp_bias": True}, "use family='gpt2'"),
    ({"window_every": 2}, "needs a sliding_window"),
    ({"sliding_window": 8, "window_every": 1}, "makes every layer global"),
    ({"family": "mixtral", "moe": EXPERTS}, "mixtral's ffn=96 is its moe.expert_ffn=8"),
    ({"family": "mixtral", "ffn": 8, "moe": EXPERTS.replace(shared_experts=1)}, "mixtral has no shared experts"),
    ({"family": "bamba", "ssm": SSM(heads=2, head_dim=48, state=8)}, "must be a multiple of hidden=64"),
    ({"family": "bamba", "ssm": SSM(heads=8, head_dim=16, state=8, attention_layers=(2,))}, "between 0 and layers-1=1"),
    ({"family": "qwen3_moe", "moe": EXPERTS.replace(shared_experts=1)}, "qwen3_moe has no shared experts"),
    (
        {"family": "deepseek_v3", "moe": EXPERTS.replace(dense_layers=3), "mla": LATENT},
        "dense_layers=3 is more than layers=2",
    ),
    ({"family": "deepseek_v3", "moe": EXPERTS, "mla": LATENT, "head_dim": 16}, "head_dim=16 must be"),
    ({"family": "deepseek_v3", "moe": EXPERTS, "mla": [12]}, "mla"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_shapes_that_cannot_be_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(LabError) as caught:
        ModelSpec(**{**BASE, **changes})
    assert words in str(caught.value)


def test_routing_that_cannot_be_is_refused() -> None:
    with pytest.raises(LabError, match="top_k=9 is more than experts=8"):
        MoE(experts=8, top_k=9, expert_ffn=4)
    with pytest.raises(LabError, match="groups=3 must divide experts=8"):
        MoE(experts=8, top_k=2, expert_ffn=4, groups=3)


def test_heads_default_as_the_field_expects() -> None:
    model = ModelSpec(**BASE)
    assert (model.kv_heads, model.head_dim) == (4, 16)
    latent = ModelSpec(**BASE, family="deepseek_v3", moe=EXPERTS, mla=LATENT)
    assert latent.head_dim == 12


GRANITE = {"model_type": "granitemoehybrid", "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "retnet"}, "model_type='retnet': transformers has no RetNet"),
        ({"model_type": "rwkv7"}, "transformers has RWKV-4 alone; use family='rwkv'"),
        ({"model_type": "zamba"}, "use family='jamba'"),
        ({"model_type": "falcon_h1"}, "the lab plans llama"),
        ({"model_type": "jamba", "mamba_proj_bias": True}, "mamba_proj_bias=True"),
        ({"model_type": "jamba", "expert_layer_period": 2, "expert_layer_offset": 0}, "expert_layer_offset=0"),
        (GRANITE | {"residual_multiplier": 0.22}, "residual_multiplier=0.22"),
        (GRANITE | {"attention_multiplier": 0.0078125}, "attention_multiplier=0.0078125"),
        (GRANITE | {"position_embedding_type": "rope"}, "position_embedding_type='rope'"),
        (GRANITE, "config.json of model_type='granitemoehybrid' has no '"),
        (
            {"model_type": "jamba", "num_hidden_layers": 4, "max_position_embeddings": 64},
            "model_type='jamba' has no 'attn_layer_period'",
        ),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias=True"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window=True"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "mlp_only_layers"),
    ],
)
def test_configs_that_cannot_be_said_are_refused_rather_than_mistaken(config: dict[str, object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        ModelSpec.from_hf(config)


def test_a_name_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(LabError, match=r"no model 'qwen3-0\.7b'.*qwen3-0\.6b"):
        catalog.models["qwen3-0.7b"]
    with pytest.raises(LabError, match="no accelerator"):
        catalog.accelerators["abacus"]


@pytest.mark.parametrize("name", sorted(catalog.accelerators))
def test_every_accelerator_has_a_source_and_peaks_above_what_was_measured(name: str) -> None:
    card = catalog.accelerators[name]
    assert card.source and card.peak("bf16")
    assert card.runnable == (card.kind == "gpu" and not name.startswith("gaudi"))
    assert (card.kind == "tpu") == name.startswith("tpu") and (card.kind == "trainium") == name.startswith("trainium")
    for precision, measured in card.measured_tflops.items():
        assert measured <= card.peak_tflops[precision] * 1.001
        assert card.achievable(precision) == measured * 1e12
    assert card.peak("int1") is None and card.achievable("int1") is None


def test_prices_are_dated_and_sourced() -> None:
    assert catalog.prices
    for row in catalog.prices:
        assert row["source"] and row["read_on"] and float(row["usd_per_gpu_hour"]) > 0
        assert row["accelerator"] in catalog.accelerators
    low, mid, high = catalog.price("h100-sxm") or (0, 0, 0)
    assert 0 < low < mid < high
    assert catalog.price("tpuv4") is None and catalog.price("h100-sxm", "spot") is not None


def test_a_cluster_takes_a_name_or_an_accelerator() -> None:
    named = Cluster(accelerator="h100-sxm", nodes=4)
    assert named.gpus == 32 and named.accelerator == catalog.accelerators["h100-sxm"]
    assert Cluster.from_json(named.to_json()) == named
    own = Accelerator(name="mine", memory_gib=10, bandwidth_gb_s=100, peak_tflops={"bf16": 10})
    assert Cluster(accelerator=own).accelerator.achievable("bf16") == 8e12
    assert Cluster(accelerator=own, price_per_gpu_hour="$2.50").price_per_gpu_hour == 2.5


def test_a_rack_is_one_domain_and_a_node_no_more_than_its_cards() -> None:
    assert Cluster(accelerator="gb200", gpus_per_node=4, nodes=18).scaleup_domain == 72
    assert Cluster(accelerator="gb300").scaleup_domain == 72
    assert Cluster(accelerator="h100-sxm", nodes=4).scaleup_domain == 8
    assert Cluster(accelerator="h100-sxm", gpus_per_node=4, nodes=4).scaleup_domain == 4
    assert Cluster(accelerator="tpuv5p").scaleup_domain == 8960


def test_a_fabric_is_chosen_or_is_the_accelerators_own() -> None:
    own = Cluster(accelerator="a100-sxm").network
    assert (own.name, own.gbit_s) == ("own", 200)
    ndr = Cluster(accelerator="h100-sxm", fabric="infiniband-ndr").network
    roce = Cluster(accelerator="h100-sxm", fabric="roce-400").network
    plain = Cluster(accelerator="h100-sxm", fabric="ethernet-10").network
    assert ndr.bytes_s == 50e9 * ndr.efficiency > roce.bytes_s > 20 * plain.bytes_s
    assert ndr.latency_seconds < roce.latency_seconds < plain.latency_seconds
    with pytest.raises(LabError, match="fabric"):
        Cluster(accelerator="h100-sxm", fabric="token-ring")


def test_global_layers_at_uneven_distances_are_refused() -> None:
    config = catalog.models["gemma-2-2b"].to_hf().to_dict()
    assert ModelSpec.from_hf(config).window_every == 2
    kinds = config["layer_types"]
    with pytest.raises(LabError, match="layer_types has global layers"):
        ModelSpec.from_hf({**config, "layer_types": [kinds[1], *kinds[1:]]})


def test_a_pattern_stands_for_layer_types() -> None:
    config = catalog.models["gemma-3-1b"].to_hf().to_dict()
    del config["layer_types"]
    assert ModelSpec.from_hf({**config, "sliding_window_pattern": 6}) == catalog.models["gemma-3-1b"]


def test_a_machine_that_was_not_measured_says_how(home: Path) -> None:
    with pytest.raises(LabError, match="lab calibrate"):
        Cluster.load("local")
    with pytest.raises(LabError, match="There is no file"):
        Cluster.load("somewhere.toml")


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "spec.json"
    write_atomic(file, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
