/* The smallest program of libc: what the memory limits are tried with. */
int main(void)
{
	return 0;
}
