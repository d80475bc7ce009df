"""The nouns of the lab, as frozen pydantic models. Importing this package is quick and needs only pydantic."""

from lablib.specs.afterwards import Calibrate, Evaluate, Export, Merge
from lablib.specs.balance import Balance
from lablib.specs.base import Spec, digest, write_atomic
from lablib.specs.catalog import catalog
from lablib.specs.cleaning import Clean, Scrub
from lablib.specs.component import Component
from lablib.specs.container import Container
from lablib.specs.contamination import Decontaminate
from lablib.specs.data import Mixture, Ref, Task
from lablib.specs.dedup import Dedup, Repeats
from lablib.specs.errors import LabError
from lablib.specs.fabric import Network
from lablib.specs.hardware import Accelerator, Cluster
from lablib.specs.midtrain import Midtrain
from lablib.specs.mixtures import Curriculum as Curriculum
from lablib.specs.model import MLA, SSM, ModelSpec, MoE
from lablib.specs.needle import Needle
from lablib.specs.parallelism import Parallelism
from lablib.specs.profile import Profile
from lablib.specs.recipe import LoRA, Optimizer, Recipe, Schedule, Shared
from lablib.specs.recipes import (
    GRPO,
    PPO,
    SFT,
    DoReMi,
    Preference,
    Prepare,
    Pretrain,
    Reward,
    Synthesize,
)
from lablib.specs.refining import Join, Verify
from lablib.specs.stability import Stability
from lablib.specs.stages import STAGES, AnyRecipe, load_recipe, parse_recipe
from lablib.specs.synthetic import Caps
from lablib.specs.tokenizing import TokenizerSpec
from lablib.specs.variants import variants

__all__ = [
    "GRPO",
    "MLA",
    "PPO",
    "SFT",
    "SSM",
    "STAGES",
    "Accelerator",
    "AnyRecipe",
    "Balance",
    "Calibrate",
    "Caps",
    "Clean",
    "Cluster",
    "Component",
    "Container",
    "Decontaminate",
    "Dedup",
    "DoReMi",
    "Evaluate",
    "Export",
    "Join",
    "LabError",
    "LoRA",
    "Merge",
    "Midtrain",
    "Mixture",
    "MoE",
    "ModelSpec",
    "Needle",
    "Network",
    "Optimizer",
    "Parallelism",
    "Preference",
    "Prepare",
    "Pretrain",
    "Profile",
    "Recipe",
    "Ref",
    "Repeats",
    "Reward",
    "Schedule",
    "Scrub",
    "Shared",
    "Spec",
    "Stability",
    "Synthesize",
    "Task",
    "TokenizerSpec",
    "Verify",
    "catalog",
    "digest",
    "load_recipe",
    "parse_recipe",
    "variants",
    "write_atomic",
]
