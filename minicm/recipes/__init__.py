"""Recipes: a model, an objective, data and a config that fit together, by the name that `minicm train` knows them by."""

import inspect
from collections.abc import Callable

from minicm.recipes import cifar10, digits, guided, points
from minicm.runs.run import Recipe

RECIPES: dict[str, Callable[..., Recipe]] = {
    "mixture-teacher": points.mixture_teacher,
    "mixture-cd": points.mixture_cd,
    "mixture-cd-published": points.mixture_cd_published,
    "mixture-ct": points.mixture_ct,
    "mixture-ct-published": points.mixture_ct_published,
    "mixture-ict": points.mixture_ict,
    "mixture-ect": points.mixture_ect,
    "mixture-sct": points.mixture_sct,
    "mixture-scd": points.mixture_scd,
    "mixture-regression": points.mixture_regression,
    "mixture-tcd": points.mixture_tcd,
    "mixture-guided-teacher": guided.mixture_guided_teacher,
    "mixture-lcd": guided.mixture_lcd,
    "mixture-lcd-published": guided.mixture_lcd_published,
    "mixture-lcf": guided.mixture_lcf,
    "mixture-lcm-lora": guided.mixture_lcm_lora,
    "mixture-style-lora": guided.mixture_style_lora,
    "digits-teacher": digits.digits_teacher,
    "digits-cd": digits.digits_cd,
    "digits-ect": digits.digits_ect,
    "digits-ict": digits.digits_ict,
    "digits-scm": digits.digits_scm,
    "digits-latent-teacher": digits.digits_latent_teacher,
    "digits-lcd": digits.digits_lcd,
    "digits-tcd": digits.digits_tcd,
    "digits-lcm-lora": digits.digits_lcm_lora,
    "cifar10-teacher": cifar10.cifar10_teacher,
    "cifar10-teacher-published": cifar10.cifar10_teacher_published,
    "cifar10-cd": cifar10.cifar10_cd,
    "cifar10-cd-published": cifar10.cifar10_cd_published,
    "cifar10-ct": cifar10.cifar10_ct,
    "cifar10-ct-published": cifar10.cifar10_ct_published,
    "cifar10-ect": cifar10.cifar10_ect,
    "cifar10-ect-published": cifar10.cifar10_ect_published,
    "cifar10-lcd": cifar10.cifar10_lcd,
    "cifar10-lcd-published": cifar10.cifar10_lcd_published,
}


def listed() -> None:
    """List the recipes with what each is for."""
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        config = inspect.signature(recipe).parameters["config"].default
        doc = (recipe.__doc__ or "").splitlines()[0]
        print(f"{name:{width}} {doc}\n{'':{width}} {config.steps} steps of {config.batch}")
