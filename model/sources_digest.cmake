# A digest of what decides tokens, as a C header: tokenised data that other sources made are not used again (model/data_cache.c).
#
#   cmake -DROOT=. -DHEADER=model_sources.h -P model/sources_digest.cmake
file(GLOB sources RELATIVE ${ROOT} ${ROOT}/model/*.c ${ROOT}/model/*.h ${ROOT}/base/json.c)
list(SORT sources)
foreach(source ${sources})
	file(SHA256 ${ROOT}/${source} digest)
	string(APPEND all "${source} ${digest}\n")
endforeach()
string(SHA256 digest "${all}")
file(WRITE ${HEADER} "#define MODEL_SOURCES \"${digest}\"\n")
