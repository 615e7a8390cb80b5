"""The BabyAI bot's planning, compiled: Minigrid's `BabyAIBot.replan` on the codes of `grid`.

Minigrid's bot takes 0.3 to 0.5 ms to answer; this takes a few microseconds. Each function here follows one of
`minigrid.utils.baby_ai_bot`, whose comments explain the plan, quirks included, and raises where that one does. The
rules are Minigrid's; `tests/mop/envs/test_babyai.py` compares every label and failure, step by step, on every task.

A plan is a stack of subgoals, an array of `SUBGOAL`. Objects that a subgoal describes ("a red key") are rows of `ITEM`.
Cells are (x, y); directions unit vectors (dx, dy).
"""

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.utils.baby_ai_bot import DisappearedBoxError

from mop.envs.geometry import EMPTY, VIEW_SIZE
from mop.envs.teacher import MAX_PASSES, EndlessPlanning
from mop.fast.compile_cache import kernel
from mop.fast.grid import (
    NO_CELL,
    NOT_VISITED,
    code_color,
    code_kind,
    code_number,
    code_state,
    search,
    search_freely,
    shortest_path,
    steps_back,
)

BOT_FIELDS = (  # the agent now; sizes of stack and items; what the bot remembers of its last call, and what that served
    *("x", "y", "dx", "dy", "carried", "depth", "num_items", "old_x", "old_y", "old_carried", "old_front"),
    *("door_was_open", "aim", "instruction"),
)
BOT = np.dtype([(name, np.int32) for name in BOT_FIELDS])
SUBGOAL = np.dtype([(name, np.int32) for name in ("kind", "reason", "datum", "a", "b", "instruction")])
ITEM = np.dtype([(name, np.int32) for name in ("number", "x", "y")])  # `WALL_ITEM` as number; x < 0: not on the grid
CLOSE, OPEN, DROP, PICKUP, GO_NEXT_TO, EXPLORE = range(6)  # kind; aim
NO_REASON, TO_PUT_NEXT, TO_EXPLORE, TO_OPEN, TO_UNLOCK, KEEP_KEY = range(6)  # reason
NOTHING, CELL, DOOR, DESCRIPTION = range(4)  # datum: (a, b) is a cell (of a door), or `b` items from row `a` on
WALL_ITEM = -1

MAX_PUSHES = 8 * (MAX_PASSES + 1)  # subgoals that one call can add

_LEFT, _RIGHT, _FORWARD = int(Actions.left), int(Actions.right), int(Actions.forward)
_PICK, _PUT, _TOGGLE, DONE = int(Actions.pickup), int(Actions.drop), int(Actions.toggle), int(Actions.done)
NO_ACTION, NO_ROOM = -1, -2
_WALL, _DOOR, _KEY, _BOX = (OBJECT_TO_IDX[kind] for kind in ("wall", "door", "key", "box"))
_IS_OPEN, _IS_LOCKED = STATE_TO_IDX["open"], STATE_TO_IDX["locked"]


class NowhereToGo(Exception):
    """A cell that the bot looked for in vain is to be gone to; Minigrid's bot ends with a TypeError here."""


@kernel
def _cell(codes, x, y):
    """As `Grid.get`, which refuses cells outside."""
    assert 0 <= x < codes.shape[1] and 0 <= y < codes.shape[0]
    return codes[y, x]


@kernel
def _front(bot, codes):
    return _cell(codes, bot.x + bot.dx, bot.y + bot.dy)


@kernel
def _is_open_door(code):
    return code_kind(code) == _DOOR and code_state(code) == _IS_OPEN


@kernel
def _fits_drop(bot, codes, seen, x, y, except_x, except_y, keep_ways_open):
    """`match_empty` of `_find_drop_pos`; with `keep_ways_open` its `match_unblock`."""
    if (x == bot.x and y == bot.y) or (x == except_x and y == except_y):
        return False
    if not seen[x, y] or code_kind(codes[y, x]) != EMPTY:
        return False
    if not keep_ways_open:
        return True
    around = ((-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0))
    classes = np.empty(8, np.int32)  # 0 free, 1 wall, 2 object or unseen
    for n in range(8):
        i, j = x + around[n][0], y + around[n][1]
        code = _cell(codes, i, j)
        is_free = code_kind(code) == EMPTY or _is_open_door(code) or (i == bot.x and j == bot.y)
        if seen[i, j] and code_kind(code) == _WALL:
            classes[n] = 1
        elif seen[i, j] and is_free and not (i == except_x and j == except_y):
            classes[n] = 0
        else:
            classes[n] = 2
    changes = 0
    for n in range(8):
        before, after = classes[(n + 7) % 8], classes[(n + 1) % 8]
        changes += (after != 0) != (classes[n] != 0)
        if classes[n] == 2 and before != 0 and after != 0:
            return False
    return changes <= 2


@kernel
def _find_drop_pos(bot, codes, seen, except_x, except_y):
    """Where to put a thing: rather reached freely than beyond objects, where it blocks no way; (-1, -1): nowhere."""
    order, _ = search_freely(bot, codes, seen)
    for beyond in (False, True):
        if beyond:
            order, _ = search(codes, seen, order, 1, 0, True, NO_CELL)
        for keep_ways_open in (True, False):
            for n in range(len(order)):
                if _fits_drop(bot, codes, seen, order[n, 0], order[n, 1], except_x, except_y, keep_ways_open):
                    return order[n, 0], order[n, 1]
    return np.int32(-1), np.int32(-1)


@kernel
def _is_wanted(bot, seen, item):
    """Whether an item may be gone to: it lies where the bot has seen it, and is not in the hand."""
    if item.number == WALL_ITEM or item.x < 0 or not seen[item.x, item.y]:
        return False
    return bot.carried == EMPTY or item.number != code_number(bot.carried)


@kernel
def _find_item(bot, codes, seen, items, first, count, adjacent):
    """`_find_obj_pos`: the cell of the nearest seen object among `count` items; (-1, -1) if none is seen.

    As there, position n is taken for object n, though after a drop the positions may have moved up.
    """
    assert count > 0
    height = codes.shape[0]
    best, best_x, best_y = 999, np.int32(-1), np.int32(-1)
    while count > 0 and not _is_wanted(bot, seen, items[first]):
        first, count = first + 1, count - 1
    if count == 0:
        return best_x, best_y
    order, free = search_freely(bot, codes, seen)
    beyond, has_beyond = free, False
    for n in range(first, first + count):
        if not _is_wanted(bot, seen, items[n]):
            continue
        x, y = items[n].x, items[n].y
        steps, _, exit_ = steps_back(free, x, y, height)
        if free[x * height + y] == NOT_VISITED:
            if not has_beyond:
                _, beyond = search(codes, seen, order, 1, 0, True, NO_CELL)
                has_beyond = True
            assert beyond[x * height + y] != NOT_VISITED
            steps, _, exit_ = steps_back(beyond, x, y, height)
            steps += steps_back(free, exit_ // height, exit_ % height, height)[0]
            steps += 7 if bot.carried != EMPTY else 4  # at least so many steps clear the way
        if steps == 0:
            steps = 3 if adjacent else 2
        if adjacent and steps == 1:
            steps = 3
        if steps < best:
            best, best_x, best_y = steps, x, y
    return best_x, best_y


# --- the stack ---


@kernel
def _push(bot, stack, kind, reason, datum, a, b):
    top = stack[bot.depth]
    top.kind, top.reason, top.datum, top.a, top.b = kind, reason, datum, a, b
    top.instruction = bot.instruction  # it serves what the subgoal served that it was added to, or took the place of
    bot.depth += 1


@kernel
def _go(bot, stack, x, y, reason=NO_REASON):
    """Add the subgoal to stand next to a cell; a cell that was not found fails when its turn comes, as in Python."""
    _push(bot, stack, GO_NEXT_TO, reason, CELL if x >= 0 else NOTHING, x, y)


@kernel
def _do(bot, stack, kind, reason=NO_REASON):
    """Add a subgoal that needs no place."""
    _push(bot, stack, kind, reason, NOTHING, 0, 0)


@kernel
def _go_to_key(bot, stack, items, codes, color):
    """Add the subgoal to stand next to a key of that colour, as the keys lie now."""
    first = bot.num_items
    for x in range(codes.shape[1]):
        for y in range(codes.shape[0]):
            code = codes[y, x]
            if code_kind(code) == _KEY and code_color(code) == color:
                row = items[bot.num_items]
                row.number, row.x, row.y = code_number(code), x, y
                bot.num_items += 1
    _push(bot, stack, GO_NEXT_TO, NO_REASON, DESCRIPTION, first, bot.num_items - first)


@kernel
def _plan_undo(bot, stack, codes, action):
    """Answer an action that was not planned with the subgoal that undoes it."""
    front = _front(bot, codes)
    if action == _FORWARD and (bot.old_x != bot.x or bot.old_y != bot.y):
        _go(bot, stack, bot.x, bot.y)
    elif action == _LEFT:
        _go(bot, stack, bot.x - bot.dy, bot.y + bot.dx)
    elif action == _RIGHT:
        _go(bot, stack, bot.x + bot.dy, bot.y - bot.dx)
    elif action == _PUT and bot.old_carried != bot.carried:
        _do(bot, stack, PICKUP)
    elif action == _PICK and bot.old_carried != bot.carried:
        _do(bot, stack, DROP)
    elif action == _TOGGLE and code_kind(front) == _DOOR and bool(bot.door_was_open) != _is_open_door(front):
        _do(bot, stack, CLOSE if _is_open_door(front) else OPEN)


@kernel
def _after_action(bot, stack, codes, seen, action):
    """`replan_after_action` of the top subgoal."""
    top = stack[bot.depth - 1]
    kind, reason = top.kind, top.reason
    is_move = action in (_FORWARD, _LEFT, _RIGHT)
    if kind == GO_NEXT_TO:
        if action in (_PICK, _PUT, _TOGGLE):
            _plan_undo(bot, stack, codes, action)
    elif kind in (OPEN, CLOSE):
        if action in (NO_ACTION, _TOGGLE):
            bot.depth -= 1
            if reason == TO_UNLOCK:  # only now, because the cell may be taken by then
                x, y = _find_drop_pos(bot, codes, seen, -1, -1)
                _do(bot, stack, DROP)
                _go(bot, stack, x, y)
        elif kind == OPEN or is_move:
            _plan_undo(bot, stack, codes, action)
    elif kind in (DROP, PICKUP):
        if action == NO_ACTION or action == (_PUT if kind == DROP else _PICK):
            bot.depth -= 1
        elif is_move and not (kind == PICKUP and action == _FORWARD):
            _plan_undo(bot, stack, codes, action)


@kernel
def _open(bot, stack, items, codes, seen, reason):
    """`OpenSubgoal.replan_before_action`."""
    front = _front(bot, codes)
    front_x, front_y = bot.x + bot.dx, bot.y + bot.dy
    assert code_kind(front) == _DOOR
    has_key = code_kind(bot.carried) == _KEY and code_color(bot.carried) == code_color(front)
    if code_state(front) == _IS_LOCKED and not has_key:
        bot.depth -= 1
        if bot.carried != EMPTY:
            x, y = _find_drop_pos(bot, codes, seen, -1, -1)
            _do(bot, stack, PICKUP)
            _go(bot, stack, x, y)
        _do(bot, stack, OPEN)
        _go(bot, stack, front_x, front_y)
        _do(bot, stack, PICKUP)
        _go_to_key(bot, stack, items, codes, code_color(front))
        if bot.carried != EMPTY:
            _do(bot, stack, DROP)
            _go(bot, stack, x, y)
    elif code_state(front) == _IS_OPEN:
        _do(bot, stack, CLOSE)
    elif code_state(front) == _IS_LOCKED and reason == NO_REASON:
        bot.depth -= 1
        _do(bot, stack, OPEN, TO_UNLOCK)
    else:
        return _TOGGLE
    return NO_ACTION


@kernel
def _can_step(bot, codes, dx, dy):
    code = _cell(codes, bot.x + dx, bot.y + dy)
    return code_kind(code) == EMPTY or _is_open_door(code)


@kernel
def _move_away(bot, codes):
    """The agent stands where it should stand next to: a step aside."""
    if _can_step(bot, codes, bot.dx, bot.dy):
        return _FORWARD
    if _can_step(bot, codes, -bot.dy, bot.dx):
        return _RIGHT
    return _LEFT


@kernel
def _clear_way(bot, stack, codes, seen):
    """Put the object in front elsewhere, with a stop to put down what is in the hand."""
    x, y = _find_drop_pos(bot, codes, seen, -1, -1)
    if bot.carried == EMPTY:
        _do(bot, stack, DROP)
        _go(bot, stack, x, y)
        _do(bot, stack, PICKUP)
        return
    block_x, block_y = _find_drop_pos(bot, codes, seen, x, y)
    _do(bot, stack, PICKUP)
    _go(bot, stack, x, y)
    _do(bot, stack, DROP)
    _go(bot, stack, block_x, block_y)
    _do(bot, stack, PICKUP)
    _go(bot, stack, bot.x + bot.dx, bot.y + bot.dy)
    _do(bot, stack, DROP)
    _go(bot, stack, x, y)


@kernel
def _free_way(bot, codes, dx, dy):
    """`_closest_wall_or_door_given_dir`: cells to the next wall or door at the agent's side, as far as it can see."""
    for distance in range(1, VIEW_SIZE // 2 + 1):
        kind = code_kind(_cell(codes, bot.x + distance * dx, bot.y + distance * dy))
        if kind in (_WALL, _DOOR):
            return distance
    return VIEW_SIZE // 2


@kernel
def _step_towards(bot, stack, codes, seen, next_x, next_y):
    """Walk or turn to the neighbouring cell of the path; open or clear what is in front."""
    front, dx, dy = _front(bot, codes), next_x - bot.x, next_y - bot.y
    if dx == bot.dx and dy == bot.dy:
        if code_kind(front) == EMPTY or _is_open_door(front):
            return _FORWARD
        if code_kind(front) == _DOOR:
            assert code_state(front) != _IS_LOCKED
            _do(bot, stack, OPEN)
        else:
            _clear_way(bot, stack, codes, seen)
        return NO_ACTION
    if dx == -bot.dy and dy == bot.dx:
        return _RIGHT
    if dx == bot.dy and dy == -bot.dx:
        return _LEFT
    to_right, to_left = _free_way(bot, codes, -bot.dy, bot.dx), _free_way(bot, codes, bot.dy, -bot.dx)
    return _LEFT if to_left > to_right else _RIGHT


@kernel
def _go_next_to(bot, stack, items, codes, seen, reason, datum, a, b):
    """`GoNextToSubgoal.replan_before_action`."""
    if datum == NOTHING:
        raise NowhereToGo
    x, y = a, b
    if datum == DESCRIPTION:
        x, y = _find_item(bot, codes, seen, items, a, b, reason == TO_PUT_NEXT)
        if x < 0:
            _do(bot, stack, EXPLORE)
            return NO_ACTION
    if reason == TO_OPEN and datum != CELL and bot.carried == EMPTY and code_state(codes[y, x]) == _IS_LOCKED:
        bot.depth -= 1
        _push(bot, stack, GO_NEXT_TO, TO_OPEN, DOOR, x, y)
        _do(bot, stack, PICKUP)
        _go_to_key(bot, stack, items, codes, code_color(codes[y, x]))
        return NO_ACTION
    if abs(x - bot.x) + abs(y - bot.y) == (1 if reason == TO_PUT_NEXT else 0):
        return _move_away(bot, codes)
    front, front_x, front_y = _front(bot, codes), bot.x + bot.dx, bot.y + bot.dy
    if reason == TO_PUT_NEXT:
        if abs(x - front_x) + abs(y - front_y) == 1:
            if code_kind(front) == EMPTY:
                bot.depth -= 1
                return NO_ACTION
            if _is_open_door(front):
                _push(bot, stack, GO_NEXT_TO, NO_REASON, CELL, front_x + 2 * bot.dx, front_y + 2 * bot.dy)
                return NO_ACTION
    elif x == front_x and y == front_y:
        bot.depth -= 1
        return NO_ACTION
    steps, (next_x, next_y), _ = shortest_path(bot, codes, seen, x, y, True)
    if steps <= 0:
        _do(bot, stack, EXPLORE)
        return NO_ACTION
    return _step_towards(bot, stack, codes, seen, next_x, next_y)


@kernel
def _first_unseen(seen, order):
    for n in range(len(order)):
        if not seen[order[n, 0], order[n, 1]]:
            return order[n, 0], order[n, 1]
    return np.int32(-1), np.int32(-1)


@kernel
def _first_closed_door(codes, order, locked_too):
    for n in range(len(order)):
        code = codes[order[n, 1], order[n, 0]]
        is_closed = code_kind(code) == _DOOR and code_state(code) != _IS_OPEN
        if is_closed and (locked_too or code_state(code) != _IS_LOCKED):
            return order[n, 0], order[n, 1]
    return np.int32(-1), np.int32(-1)


@kernel
def _explore(bot, stack, codes, seen):
    """`ExploreSubgoal.replan_before_action`: to the nearest unseen cell, else to a closed door, else a locked one."""
    order, _ = search_freely(bot, codes, seen)
    beyond, (x, y) = order, _first_unseen(seen, order)
    if x < 0:
        beyond, _ = search(codes, seen, order, 1, 0, True, NO_CELL)
        x, y = _first_unseen(seen, beyond)
    if x >= 0:
        _go(bot, stack, x, y, TO_EXPLORE)
        return NO_ACTION
    for locked_too in (False, True):
        for cells in (order, beyond):
            if x < 0:
                x, y = _first_closed_door(codes, cells, locked_too)
    assert x >= 0
    door = codes[y, x]
    has_key = code_kind(bot.carried) == _KEY and code_color(bot.carried) == code_color(door)
    bot.depth -= 1
    _do(bot, stack, OPEN, KEEP_KEY if code_state(door) == _IS_LOCKED and has_key else NO_REASON)
    _push(bot, stack, GO_NEXT_TO, TO_OPEN, DOOR, x, y)
    return NO_ACTION


@kernel
def _is_exploratory(subgoal):
    return subgoal.kind == EXPLORE or (subgoal.kind == GO_NEXT_TO and subgoal.reason == TO_EXPLORE)


@kernel
def _before_action(bot, stack, items, codes, seen):
    """`replan_before_action` of the top subgoal: an action, or NO_ACTION where the stack has changed."""
    top = stack[bot.depth - 1]
    front = _front(bot, codes)
    if top.kind == GO_NEXT_TO:
        return _go_next_to(bot, stack, items, codes, seen, top.reason, top.datum, top.a, top.b)
    if top.kind == EXPLORE:
        return _explore(bot, stack, codes, seen)
    if top.kind == OPEN:
        return _open(bot, stack, items, codes, seen, top.reason)
    if top.kind == CLOSE:
        assert _is_open_door(front)
        return _TOGGLE
    if top.kind == DROP:
        assert bot.carried != EMPTY and code_kind(front) == EMPTY
        return _PUT
    assert bot.carried == EMPTY
    return _PICK


@kernel
def replan(bots, stack, items, item_room, codes, seen, action, x, y, dx, dy, carried):
    """The bot's next action in the present state, DONE if it believes to be done; call it once per step.

    bots (1,) of `BOT`; stack (D,) of `SUBGOAL`; items (I,) of `ITEM`; item_room: rows that one call may need; codes
    (height, width), seen (width, height): of `grid.observe`; action: the one just executed, NO_ACTION at first;
    then the agent's cell, direction and the code of what it carries. Writes what the answer serves into the bot: `aim`,
    the kind of the top subgoal (EXPLORE where it leads to an unseen cell), and the subgoal's `instruction`. NO_ROOM:
    nothing was done, stack or items must grow. Raises EndlessPlanning, DisappearedBoxError, AssertionError,
    NowhereToGo; then it cannot be asked again in that episode.
    """
    bot = bots[0]  # numba takes 2 microseconds longer to accept a record than an array of one
    if bot.depth + MAX_PUSHES > len(stack) or bot.num_items + item_room > len(items):
        return NO_ROOM
    bot.x, bot.y, bot.dx, bot.dy, bot.carried = x, y, dx, dy, carried
    if action == _TOGGLE and code_kind(bot.old_front) == _BOX:
        raise DisappearedBoxError("a box was opened")
    if bot.depth > 0:
        bot.instruction = stack[bot.depth - 1].instruction
        _after_action(bot, stack, codes, seen, action)
    while bot.depth > 0 and _is_exploratory(stack[bot.depth - 1]):
        bot.depth -= 1
    answer = NO_ACTION
    for _ in range(MAX_PASSES):
        if bot.depth == 0:
            answer = DONE
            break
        top = stack[bot.depth - 1]
        bot.aim, bot.instruction = EXPLORE if _is_exploratory(top) else top.kind, top.instruction
        answer = _before_action(bot, stack, items, codes, seen)
        if answer != NO_ACTION:
            break
    if answer == NO_ACTION:
        raise EndlessPlanning
    bot.old_x, bot.old_y, bot.old_carried, bot.old_front = bot.x, bot.y, bot.carried, _front(bot, codes)
    if code_kind(bot.old_front) == _DOOR:
        bot.door_was_open = _is_open_door(bot.old_front)
    return answer
