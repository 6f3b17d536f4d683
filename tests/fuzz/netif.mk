# Checksums are not looked at: no fuzzer would get past them.
LWIP_HOST := $(LWIP_SRC:%=$(BUILD)/host/lwip/%.o)
FUZZ_netif := hv/net/netif.c $(LWIP_HOST)

$(BUILD)/fuzz/netif: HOST_CFLAGS += $(LWIP_INC)
$(BUILD)/host/lwip/%.o: $(LWIP_DIR)/src/%.c $(wildcard hv/net/lwip_port/*.h hv/net/lwip_port/arch/*.h)
	@mkdir -p $(@D)
	$(CLANG) -std=gnu11 -O1 -g -w -fsanitize=fuzzer-no-link,address $(LWIP_INC) \
		-DCHECKSUM_CHECK_IP=0 -DCHECKSUM_CHECK_UDP=0 -DCHECKSUM_CHECK_ICMP=0 -c $< -o $@
