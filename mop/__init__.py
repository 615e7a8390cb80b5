"""The rooms of the library, on floors: a file imports from its own room and from the floors below it.

base < store, kernels < worlds, measures < plotting < mixture_of_experts, plotting_utils < learning < jobs < pages
"""
