"""Operands of instructions as functions of the machine that runs them."""

from .types import Type, constant, registers_of


def reader(operand, type_):
    """Function of a machine that returns the numbers of an operand."""
    if operand in ('%tid.x', '%ctaid.x'):
        return lambda machine: machine.special[operand]
    if operand.startswith('%'):
        return lambda machine: type_.numbers(machine.registers[operand])
    if operand == 'global_smem':
        operand = '0'
    numbers = type_.numbers(constant(operand, type_))
    return lambda machine: numbers


def writer(instruction, operand, type_):
    """Function that sets a register of a machine from numbers, where the instruction is guarded."""
    allowed = condition(instruction)
    if operand != '_' and registers_of(operand).itemsize > type_.raw.itemsize:
        # Integers fill wider registers, with their sign if they have one.
        wider = Type(f'{type_.dtype.kind}{registers_of(operand).itemsize}')
        return lambda machine, numbers: machine.write(
            operand, wider.bits(numbers.astype(type_.dtype)), allowed(machine)
        )
    return lambda machine, numbers: machine.write(operand, type_.bits(numbers), allowed(machine))


def condition(instruction):
    """Function of a machine that tells which threads carry an instruction out; None if all do."""
    guard, negated = instruction.guard, instruction.negated
    if guard is None:
        return lambda machine: machine.active

    def guarded(machine):
        holds = ~machine.registers[guard] if negated else machine.registers[guard]
        return holds if machine.active is None else holds & machine.active

    return guarded
