/*
 * What the machine does with RoCE (net/net.h's roce_* hooks): as a hypervisor it has links to
 * memory nodes, one fabric for the stores of all VMs (remote.h); as a memory node it answers
 * clients.
 */
#pragma once

#include <umbra/boot_info.h>

/* After net_init(), before VMs run. Nothing without a network. */
void service_init(const struct boot_info *boot);
