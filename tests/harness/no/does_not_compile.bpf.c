// SPDX-License-Identifier: GPL-2.0-only
/* Must be an ERROR with the compiler's message, and disturb no other file. */
#include "spinlock.h"

SEC("tc") __rule("Does not compile") __success
int does_not_compile(struct __sk_buff *skb)
{
	return no_such_name;
}
