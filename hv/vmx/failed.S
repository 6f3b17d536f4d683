/*
 * Where VMREAD and VMWRITE jump when they fail (vmx.h): the field's encoding is in RAX, the stack is
 * the caller's. Never returns.
 */
	.text
	.globl vmcs_read_failed
	.type vmcs_read_failed, @function
vmcs_read_failed:
	xor	%esi, %esi
	jmp	1f

	.globl vmcs_write_failed
	.type vmcs_write_failed, @function
vmcs_write_failed:
	mov	$1, %esi
1:	mov	%eax, %edi
	and	$-16, %rsp
	call	vmcs_access_failed

	.section .note.GNU-stack, "", @progbits
