# SPDX-License-Identifier: GPL-2.0-only
"""Legal programs that the generator damages: the shapes of the legal twins in bpf_progs/rules. Pure."""

from __future__ import annotations

from typing import Tuple

from harness.fuzz import ir

_TEXTS = (
    # balance: two sections, and an exit between
    """
    program type=sched_cls
    function kind=main {
      lookup var=0 map=hash key=1
      if_set var=0 {
        lock var=0 at=8
        store var=0 at=0 size=8
        if bit=1 {
          unlock var=0 at=8
          exit
        }
        load var=0 at=16 size=8
        unlock var=0 at=8
      }
    }
    """,
    # pruning: two elements, and a branch that could take one for the other
    """
    program type=sched_cls often=1
    function kind=main {
      lookup var=0 map=hash key=1
      lookup var=1 map=hash key=2
      if_set var=0 {
        if_set var=1 {
          copy var=2 of=0
          if bit=1 {
            load var=1 at=0 size=8
          }
          lock var=0 at=8
          store var=0 at=16 size=4
          unlock var=2 at=8
          lock var=1 at=8
          unlock var=1 at=8
        }
      }
    }
    """,
    # callback: a value is locked within one round
    """
    program type=sched_cls
    function kind=main {
      for_each map=hash function=1
      bpf_loop function=2
    }
    function kind=each {
      value var=0
      lock var=0 at=8
      store var=0 at=0 size=8
      unlock var=0 at=8
    }
    function kind=loop {
      lookup var=1 map=front key=1
      if_set var=1 {
        lock var=1 at=0
        unlock var=1 at=0
      }
    }
    """,
    # callback_inner_map: the values of two callbacks, one inside the other
    """
    program type=sched_cls
    function kind=main {
      for_each map=hash function=1
    }
    function kind=each {
      value var=0
      for_each map=hash function=2
    }
    function kind=each {
      value var=1
      lock var=0 at=8
      store var=0 at=0 size=8
      unlock var=0 at=8
      lock var=1 at=8
      store var=1 at=0 size=8
      unlock var=1 at=8
    }
    """,
    # callback: what one round leaves is another's
    """
    program type=sched_cls
    function kind=main {
      lookup var=0 map=hash key=1
      if_set var=0 {
        for_each map=hash function=1
      }
    }
    function kind=each {
      value var=1
      lock var=1 at=8
      load var=0 at=0 size=4
      unlock var=1 at=8
      lock var=0 at=8
      unlock var=0 at=8
    }
    """,
    # subprogram: one locks, another unlocks
    """
    program type=sched_cls
    function kind=main {
      lookup var=0 map=array key=1
      if_set var=0 {
        call function=1
        store var=0 at=0 size=8
        call function=2
      }
      call function=3
    }
    function kind=static {
      lock var=0 at=8
    }
    function kind=static {
      if bit=2 {
        unlock var=0 at=8
        exit
      }
      unlock var=0 at=8
    }
    function kind=global {
      lookup var=0 map=front key=0
      if_set var=0 {
        lock var=0 at=0
        unlock var=0 at=0
      }
    }
    """,
    # global: an element by its address
    """
    program type=xdp
    function kind=main {
      direct var=0 map=single
      direct var=1 map=single
      lock var=0 at=8
      load var=1 at=0 size=8
      unlock var=0 at=8
    }
    """,
    # inner_map: two inner maps in turn
    """
    program type=sched_cls
    function kind=main {
      inner var=0 map=outer element=0 key=0
      inner var=1 map=outer element=1 key=0
      if_set var=0 {
        if_set var=1 {
          lock var=0 at=8
          store var=0 at=0 size=8
          unlock var=0 at=8
          lock var=1 at=8
          unlock var=1 at=8
        }
      }
    }
    """,
    # loop: balanced over each turn
    """
    program type=sched_cls
    function kind=main {
      lookup var=0 map=hash key=1
      if_set var=0 {
        repeat times=3 {
          lock var=0 at=8
          if bit=4 {
            store var=0 at=0 size=8
          }
          unlock var=0 at=8
        }
        lock var=0 at=8
        repeat times=2 {
          load var=0 at=16 size=8
        }
        unlock var=0 at=8
      }
    }
    """,
    # access: the bytes beside the lock, by an offset that is not known
    """
    program type=sched_cls
    function kind=main {
      lookup var=0 map=hash key=1
      if_set var=0 {
        copy var=1 of=0
        shift var=1 mask=3
        load var=1 at=16 size=4
        atomic var=0 at=12 size=4
        pass var=0 at=16
        load_absolute
        lock var=0 at=8
        store var=1 at=0 size=1
        unlock var=0 at=8
      }
    }
    """,
)


def _read() -> Tuple[ir.Program, ...]:
    return tuple(ir.parse(text) for text in _TEXTS)


PROGRAMS = _read()
