"""Worlds of a task as JSON, for the page in which a policy runs: what `world.js` reads.

A file has one `palette`, a list of cell codes without the numbers of objects (`mop.envs.geometry`); a letter of LETTERS
stands for one of them in the `cells` of its worlds.
"""

import string
from collections.abc import Sequence

from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from mop.envs.babyai import World
from mop.envs.bot_paths import BotPaths
from mop.envs.geometry import cell_code

LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase  # BabyAI has 38 codes
WITHOUT_NUMBER = 2**20 - 1
_KINDS: dict[type[Instr], str] = {
    **{GoToInstr: "go_to", PickupInstr: "pick_up", OpenInstr: "open", PutNextInstr: "put_next"},
    **{BeforeInstr: "before", AfterInstr: "after", AndInstr: "and"},
}
_PARTS = {"desc": "desc", "move": "desc_move", "fixed": "desc_fixed", "a": "instr_a", "b": "instr_b"}  # their fields


def pack_worlds(bot_paths: BotPaths, seeds: Sequence[int]) -> dict:
    """Pack the worlds of some seeds: {"palette": codes, "worlds": a dict for each seed}.

    bot_paths: of the task and step limit. `bot_steps` is the length of the bot's episode, None where it fails.
    """
    world, palette = World(bot_paths.task_id, bot_paths.max_steps), []
    return {"worlds": [_pack_world(world, seed, bot_paths.ask(seed), palette) for seed in seeds], "palette": palette}


def _pack_world(world: World, seed: int, of_bot: int | str, palette: list[int]) -> dict:
    """Pack one world; adds to the palette what is not in it yet. of_bot: of `BotPaths.ask`."""
    world.reset(seed)
    env, codes = world.env, (world.codes & WITHOUT_NUMBER).reshape(-1).tolist()
    palette += sorted(set(codes) - set(palette))
    held = env.carrying
    return {
        "seed": seed,
        "width": env.width,
        "height": env.height,
        "cells": "".join(LETTERS[palette.index(code)] for code in codes),
        "agent": [*world.position, world.direction],
        "carrying": None if held is None else _code(held),
        "carried_from": None if held is None else [int(v) for v in held.init_pos],  # it is there in the first view
        "contents": [
            [index % env.width, index // env.width, _code(cell.contains)]
            for index, cell in enumerate(env.grid.grid)
            if cell is not None and cell.contains is not None
        ],
        "mission": world.mission,
        "instruction": pack_instruction(env.instrs),
        "max_steps": env.max_steps,
        "room_size": env.room_size,
        "num_rows": env.num_rows,
        "num_cols": env.num_cols,
        "bot_steps": of_bot if isinstance(of_bot, int) else None,
    }


def pack_instruction(instruction: Instr) -> dict:
    """Pack a mission as a tree of dicts, see `instructions.js`."""
    parts = {
        name: pack_instruction(part) if isinstance(part, Instr) else _pack_description(part)
        for name, field in _PARTS.items()
        if (part := getattr(instruction, field, None)) is not None
    }
    return {"kind": _KINDS[type(instruction)], **parts, "strict": bool(getattr(instruction, "strict", False))}


def _pack_description(description: ObjDesc) -> dict:
    return {"type": description.type, "color": description.color, "loc": description.loc}


def _code(thing) -> int:
    return cell_code(thing) & WITHOUT_NUMBER
