// The probe library with a slow is_device_type_supported: it takes 15 ms for every
// type from 1000 on. The first such question creates the file $TYPES_ASKED and waits,
// 60 s at most, until the file $TYPES_RELEASED exists.
#define is_device_type_supported probe_supports
#include "../../../internal/module/cabi/testdata/probe.c"
#undef is_device_type_supported

static atomic_int slow_asked;

int is_device_type_supported(unsigned int type)
{
	if (type < 1000)
		return OK;
	if (atomic_fetch_add(&slow_asked, 1) == 0) {
		close(open(getenv("TYPES_ASKED"), O_CREAT | O_WRONLY, 0600));
		for (int i = 0; i < 60000 && access(getenv("TYPES_RELEASED"), F_OK) != 0; i++)
			usleep(1000);
	}
	usleep(15000);
	return OK;
}
